"""Servers of the tests' own end with who wanted them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import NotInstalled, installed, place_of, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no setsid")

# What it writes to is at its end when the server is.
SERVER = ("sh", "-c", "exec 3>fifo; echo ready; exec sleep 1000")
STARTS = f"""
import sys
from pathlib import Path
from processes import place_of, run, running

with place_of("test") as directory:
    run(directory, "mkfifo", "fifo")
    print(directory, flush=True)
    with running(directory, {SERVER!r}, "ready"):
        print("ready", flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_server_ends_with_its_test(is_killed: bool) -> None:
    """It is stopped, and its directory removed, however the tests end."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    ) as tests:
        assert tests.stdout is not None
        directory = Path(tests.stdout.readline().decode().strip())
        with (directory / "fifo").open() as fifo:
            assert tests.stdout.readline() == b"ready\n"
            if is_killed:
                tests.send_signal(signal.SIGKILL)
            else:
                tests.communicate()
            assert fifo.read() == ""
    if not is_killed:
        assert not directory.exists()


def test_server_that_does_not_start() -> None:
    """What it has said is told."""
    command = ("sh", "-c", "echo no such option; exit 1")

    with (
        pytest.raises(RuntimeError, match="no such option"),
        place_of("test") as directory,
        running(directory, command, "ready"),
    ):
        pytest.fail("started")

    assert not directory.exists()


def test_server_that_is_not_installed() -> None:
    """It is told what installs it."""
    with pytest.raises(NotInstalled) as raised:
        installed("nosuchd")

    assert str(raised.value) == "no nosuchd: scripts/install-services.sh installs it"
