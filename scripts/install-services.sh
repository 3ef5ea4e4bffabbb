#!/usr/bin/env bash
# Installs, on Debian and as root, the servers that tests are run on and that pip has not:
# MariaDB with Galera, and PgBouncer. The tests start their own, on free ports.
set -euo pipefail

fail() {
    echo "scripts/install-services.sh: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "there is no apt-get; install MariaDB" \
    "with Galera (mariadbd, rsync) and PgBouncer by your system's own means"

missing=()
for package in mariadb-server galera-4 rsync pgbouncer; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || true
    [ "$status" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

[ "$(id -u)" -eq 0 ] || fail "only root can install ${missing[*]}"

# Debian would start each as a service.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
echo "scripts/install-services.sh: installed ${missing[*]}"
