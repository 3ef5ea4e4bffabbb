"""Servers of the system's packages, as processes that end with who wanted them.

A shell starts each, and stops it when its stdin ends: so a server ends with the test
process, even a killed one, and Ctrl-C does not reach it before its tests end. Root's
servers run as `nobody`.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from postgresql import unprivileged

# With its process group, as a Galera node has helpers while another one joins; and by
# SIGKILL, as a node that is alone may ignore others for long.
SCRIPT = """
directory=$1 ready=$2
: >log
shift 2
setsid "$@" >>log 2>&1 &
until grep -q "$ready" log; do
    kill -0 $! 2>/dev/null || break
    sleep 0.05
done
grep -q "$ready" log && echo $! || echo failed
read -r _
kill -9 -$! 2>/dev/null
wait
cd / && rm -rf "$directory"
"""
PATH = f"{os.defpath}:/usr/sbin:/sbin"


class NotInstalled(RuntimeError):
    """A program is not on this machine."""


def installed(program: str) -> str:
    """Return where a program is, or say what installs it."""
    if (path := shutil.which(program, path=PATH)) is None:
        raise NotInstalled(f"no {program}: scripts/install-services.sh installs it")
    return path


@contextmanager
def place_of(name: str) -> Iterator[Path]:
    """Make a directory for a server, which is removed unless its shell does it."""
    directory = Path(tempfile.mkdtemp(prefix=f"safesession-{name}-"))
    try:
        unprivileged(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(directory: Path, *command: str | Path) -> None:
    """Run a command to its end, as the server's user."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={"PATH": PATH, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **unprivileged(directory),
    )
    if done.returncode:
        raise RuntimeError(done.stdout)


@contextmanager
def running(
    directory: Path, command: Sequence[str | Path], ready: str
) -> Iterator[int]:
    """Have a server run whose log says when it is ready; yield its process id."""
    with subprocess.Popen(
        ["/bin/sh", "-c", SCRIPT, "sh", directory, ready, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        env={"PATH": PATH, "LC_ALL": "C"},
        start_new_session=True,
        **unprivileged(directory),
    ) as shell:
        assert shell.stdout is not None
        told = shell.stdout.readline().decode().strip()
        if not told.isdigit():
            raise RuntimeError((directory / "log").read_text())
        # After this, Popen ends the shell's stdin and waits for the shell.
        yield int(told)
