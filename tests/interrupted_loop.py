"""Runs units whose event loop a KeyboardInterrupt stops, and prints what they leave.

Run by test_interrupted_async.py in a process of its own: coroutines and connections
that are collected without a loop tell so in many ways, and some threads never end.
"""

import asyncio
import gc
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from conftest import set_pragmas
from interruptions import Interruption, contexts
from models import Base, stored
from safesession import async_session_scope
from units import ROWS, Client, Place, app_of, hold_for_work


def place_at(path: Path) -> Place:
    """Return a database of its own: one that is left locked is of no more use."""
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0)
    async_engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0
    )
    for each in (engine, async_engine.sync_engine):
        event.listen(each, "connect", set_pragmas)
    Base.metadata.create_all(engine)
    return Place(engine, async_engine, Counter())


def left_by(
    interruption: Interruption, kind: str, error: BaseException | None, place: Place
) -> BaseException | None:
    """Return what left a unit that was interrupted after its block."""

    def ends() -> None:
        interruption.__enter__()
        if error is not None:
            raise error

    try:
        if kind == "scope":
            asyncio.run(hold_for_work(place, async_session_scope, ends))
        else:
            asyncio.run(Client(app_of(place, kind, ends)).ask())
    except BaseException as left:
        return left
    finally:
        interruption.__exit__(None, None, None)
    return None


def faults(
    left: BaseException | None, error: BaseException | None, place: Place
) -> Iterator[str]:
    """Yield what is wrong after an interrupt, by name."""
    if not isinstance(left, KeyboardInterrupt):
        yield f"left by {left!r}"
    if error is not None and error.__traceback__ and error not in contexts(left):
        yield "exception of the block lost"
    if place.out():
        yield "connection out"
    elif stored(place.engine) not in ([], ROWS if error is None else []):
        yield "done by half"


def main(directory: str, kind: str, end: str, step: str) -> None:
    logging.disable()
    gc.disable()
    found = []
    for number, interruption in enumerate(Interruption.each(int(step))):
        place = place_at(Path(directory) / f"{number}.db")
        error = LookupError() if end == "raised" else None
        left = left_by(interruption, kind, error, place)
        if interruption.position is not None:
            found.append((interruption.position, [*faults(left, error, place)]))
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(directory, *sys.argv[1:])
    os._exit(0)
