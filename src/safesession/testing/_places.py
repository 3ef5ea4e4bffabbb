"""The line of a user's code that a call into a library comes from."""

import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

# Whoever calls through one of these did not write the line that is to be named.
_LIBRARIES = frozenset(
    {
        "_pytest",
        "anyio",
        "fastapi",
        "greenlet",
        "httpx",
        "pluggy",
        "pytest",
        "pytest_asyncio",
        "safesession",
        "sqlalchemy",
        "sqlmodel",
        "starlette",
        "uvicorn",
    }
)
_STANDARD_LIBRARY = tuple(
    sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")
)
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a function, or a thread that no line of the user's runs in."""

    function: str
    path: str = ""
    line: int = 0

    def source(self) -> str:
        return linecache.getline(self.path, self.line).strip()


def calling_place() -> Place:
    """Return the innermost line on the stack that belongs to no known library."""
    for frame in _stack(sys._getframe()):
        if not _is_library(frame):
            code = frame.f_code
            return Place(f"{code.co_name}()", code.co_filename, frame.f_lineno)
    return Place(f"thread {threading.current_thread().name}")


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    # An async engine calls its driver in a greenlet, whose stack begins there; the
    # caller's goes on in its parent.
    greenlet = sys.modules.get("greenlet")
    current = None if greenlet is None else greenlet.getcurrent()
    while True:
        while frame is not None:
            yield frame
            frame = frame.f_back
        current = None if current is None else current.parent
        if current is None:
            return
        frame = current.gr_frame


def _is_library(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    # Generated, such as SQLAlchemy's decorators, or frozen.
    if path.startswith("<"):
        return True
    if path.startswith(_STANDARD_LIBRARY) and not any(map(path.count, _INSTALLED)):
        return True
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in _LIBRARIES
