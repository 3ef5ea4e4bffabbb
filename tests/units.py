"""Units of work to interrupt on any holder of a session, and what one leaves."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from apps import ASGIApp, Message
from backends import impatient
from ended import end
from models import Note, stored
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing._suspensions import Interrupt, Interrupted, Unit
from test_aio import settle

# The complete runs, which take minutes; the ordinary ones are short for it.
EXHAUSTIVE = os.environ.get("SAFESESSION_EXHAUSTIVE") == "1"

ROWS = ["first", "second"]

# Holds an async session on an engine, as a scope does.
Hold = Callable[[AsyncEngine], AbstractAsyncContextManager[AsyncSession]]


def work(session: Session) -> None:
    session.add(Note(text="first"))
    session.flush()
    session.scalars(select(Note)).all()
    session.add(Note(text="second"))


class Place:
    """A database, and engines on it whose pools have a connection each."""

    def __init__(
        self, engine: Engine, async_engine: AsyncEngine, tried: Counter[str]
    ) -> None:
        self.engine = engine
        self.async_engine = async_engine
        self._tried = tried
        self._impatient = impatient(engine)

    async def at_each(
        self, unit: Unit, interrupt: Callable[[], Interrupt], *, first: int = 1
    ) -> AsyncGenerator[Interrupted, None]:
        """Interrupt the unit at each suspension, a run for each; the last has none."""
        kind = f"suspensions, {interrupt().name}"
        at, reached, most = first, True, 0
        while reached:
            await self.prepare()
            seen = await unit.interrupted(at, interrupt())
            self._tried[kind] += seen.reached
            yield seen
            at, reached, most = at + 1, seen.reached, max(most, seen.suspensions)
        # A few more on a machine that is busy, and hundreds where it asks in a loop.
        assert most < seen.suspensions + 30, "it was busy while it waited"

    async def first_of_exit(self, unit: Unit) -> int:
        """Run the unit untouched; return the number of its exit's first suspension."""
        await self.prepare()
        of_block = (await unit.interrupted(0, Interrupt())).of_block
        assert of_block is not None
        return of_block + 1

    async def prepare(self) -> None:
        """Be as before every other run: no rows, and a connection in the pool."""
        forget(self.engine)
        async with self.async_engine.connect():
            pass

    async def left_by(self, seen: Interrupted) -> tuple[list[str], set[str]]:
        """Return the rows that a run has left, and what else, by name."""
        rows = stored(self.engine)
        left = {task.get_coro().__name__ for task in seen.pending}
        await end(seen.pending)
        locked = await self._locked()
        for what, is_so in {
            "hung": seen.hung,
            f"lost to {type(seen.error).__name__}": seen.lost,
            "connection": self.out() != 0,
            "lock": locked,
        }.items():
            if is_so:
                left.add(what)
        return rows, left

    def out(self) -> int:
        pools: Any = self.engine.pool, self.async_engine.sync_engine.pool
        return sum(pool.checkedout() for pool in pools)

    async def _locked(self) -> bool:
        """Tell whether others are kept from writing until the next collection."""
        await settle()
        try:
            forget(self._impatient)
        except OperationalError:
            await self.free_locks()
            forget(self.engine)
            return True
        return False

    async def free_locks(self) -> None:
        """Collect the cursors that keep SQLite locked."""
        gc.collect()
        await settle()

    def close(self) -> None:
        self._impatient.dispose()


def forget(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(Note))


def in_block(place: Place, hold: Hold) -> Unit:
    """Return the work in the block of an `async with`."""

    async def run(unit: Unit) -> None:
        await hold_for_work(place, hold, unit.block_ends)

    return Unit(run)


async def hold_for_work(place: Place, hold: Hold, ends: Callable[[], None]) -> None:
    """Do the work in an `async with`, and call `ends` where its block ends."""
    async with hold(place.async_engine) as session:
        await session.run_sync(work)
        ends()


def app_of(place: Place, kind: str, ends: Callable[[], None]) -> FastAPI:
    """Return an app that does the work, and calls `ends` where the block ends."""
    app = FastAPI()
    if kind == "async session":
        get_async_session = async_session_dependency(place.async_engine)

        @app.get("/")
        async def endpoint(session: AsyncSession = Depends(get_async_session)) -> None:
            await session.run_sync(work)
            ends()

        return app
    get_session = session_dependency(place.engine)
    if kind == "sync session":

        @app.get("/")
        async def async_endpoint(session: Session = Depends(get_session)) -> None:
            work(session)
            ends()

    else:

        @app.get("/")
        def sync_endpoint(session: Session = Depends(get_session)) -> None:
            work(session)
            ends()

    return app


class Client:
    """Sends requests to an app in process, and may leave before it has an answer.

    Args:
        told: Whether an app that sends to a client that has left is told by an OSError.
    """

    def __init__(self, app: ASGIApp, told: bool = False, path: str = "/") -> None:
        self._app = app
        self._told = told
        self._path = path
        self.answered: list[int] = []
        self.error: Exception | None = None

    async def ask(self) -> None:
        self.answered.clear()
        self.error = None
        self.gone = asyncio.Event()
        self._messages = [{"type": "http.request"}]
        scope: Message = {"type": "http", "method": "GET", "path": self._path}
        scope |= {"headers": [], "query_string": b""}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:
            # For the server to log.
            self.error = error

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._told and self.gone.is_set():
            raise OSError("the client has left")
        if message["type"] == "http.response.start":
            self.answered.append(message["status"])


@contextmanager
def no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
