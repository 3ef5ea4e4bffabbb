"""What the figures of a run are measured on, and with."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .databases import ROOT

PACKAGES = (
    "sqlalchemy",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "anyio",
    "aiosqlite",
    "psycopg",
    "asyncpg",
    "advanced-alchemy",
    "fastapi-async-sqlalchemy",
    "context-async-sqlalchemy",
)

# Linux tells which a process may use, and takes orders.
CORES = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


def leave_core() -> None:
    """Leave the last core to what is measured, in what this process starts, too."""
    if len(CORES) > 1:
        os.sched_setaffinity(0, CORES[:-1])


def give_core(pid: int) -> None:
    """Give the core that was left to what is measured, if one was.

    A server has one core then, as where there is a worker for each. On several its
    threads would wake each other from core to core, which takes as long as their work,
    and differs with all that the other cores do.
    """
    if left := core_left():
        os.sched_setaffinity(pid, left)


def core_left() -> set[int]:
    """Return the core that `leave_core` has left, in a set that may be empty."""
    return set(CORES) - os.sched_getaffinity(0) if CORES else set()


@contextmanager
def all_cores() -> Iterator[None]:
    """Leave no core for the length of the block."""
    left = core_left()
    if left:
        os.sched_setaffinity(0, CORES)
    try:
        yield
    finally:
        if left:
            leave_core()


def facts() -> dict[str, Any]:
    """Return what can be known of it."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "a core for the server": bool(core_left()),
        "load at the start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "commit": git("describe", "--always", "--dirty", "--abbrev=12"),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def processor() -> str | None:
    """Return its name, where Linux tells."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else None


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git(*arguments: str) -> str | None:
    """Return what git says of this repository, or ``None`` where there is none."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
