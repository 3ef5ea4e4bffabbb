#!/usr/bin/env bash
# Installs, on Debian and as root, the Python of Debian's testing beside those that the
# machine has, and prints the directory to put on PATH. A whole small system is laid in a
# folder, as that Python needs its libraries, and the interpreter is told to take them from
# there; nothing of the machine's own is replaced.
set -euo pipefail
place=${1:-/opt/python-of-testing}

fail() {
    echo "scripts/install-python.sh: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "there is no apt-get; install the Python by your" \
    "system's own means"

if [ ! -e "$place/python/done" ]; then
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get -qq update
        apt-get -qq install --no-install-recommends debootstrap patchelf
        rm -rf "$place"
        debootstrap --variant=minbase --include=python3-venv,ca-certificates \
            testing "$place"
    } >&2
    name=$(basename "$(readlink -f "$place/usr/bin/python3")")
    libraries=("$place"/usr/lib/*-linux-gnu*)
    loader=("$place"/usr/lib*/ld-linux*.so.*)
    # A directory with nothing else in it, as the programs of the other system do not run.
    mkdir -p "$place/python/bin"
    ln -sfn ../usr/lib "$place/python/lib"
    patchelf --set-interpreter "${loader[0]}" --force-rpath \
        --set-rpath "${libraries[0]}" \
        --output "$place/python/bin/$name" "$place/usr/bin/$name"
    "$place/python/bin/$name" -c "import sqlite3, ssl" || fail "$name does not run"
    touch "$place/python/done"
fi
echo "$place/python/bin"
