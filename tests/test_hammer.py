"""Requests cancelled at random moments, on a pool that is too small for them."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import pytest
from anyio import CancelScope
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from apps import in_thread, read, write
from models import Note, stored
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing._interrupts import OUTLASTS_TWO
from test_cancellation import LEFT_BY_STATEMENT
from units import EXHAUSTIVE, Client

pytestmark = pytest.mark.anyio

REQUESTS = 3000 if EXHAUSTIVE else 150
AT_ONCE = 12


class Hammer:
    """Sends requests to an app, and cancels most of them at some moment."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._seed = random.randrange(2**32)
        self._random = random.Random(self._seed)
        self._answers: dict[str, list[int]] = {}
        self.cancelled = 0
        self.errors: list[BaseException] = []

    def __repr__(self) -> str:
        asked = len(self._answers)
        return f"{asked} requests, {self.cancelled} cancelled, by seed {self._seed}"

    def wrong(self, rows: Sequence[str]) -> list[tuple[str, list[int], bool]]:
        """Return the answers that do not go with the row of their request."""
        return [
            (text, answered, text in rows)
            for text, answered in self._answers.items()
            if answered and (answered == [201]) != (text in rows)
        ]

    async def run(self, requests: int) -> None:
        numbers = iter(range(requests))
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._ask(numbers))

    async def _ask(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            client = Client(self._app, path=f"/{number}")
            self._answers[str(number)] = client.answered
            scope = CancelScope()
            task = asyncio.create_task(self._within(scope, client))
            # Turns of the loop, and not time, so that a slow machine changes little.
            for _ in range(
                self._random.randrange(self._random.choice([4, 20, 100, 400]))
            ):
                await asyncio.sleep(0)
            kind = self._random.choice(["native", "twice", "scope", "none"])
            if kind == "scope":
                scope.cancel()
            elif kind != "none":
                task.cancel()
            if kind == "twice":
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait({task}, timeout=30)
            assert task.done(), "a request hangs"
            self.cancelled += task.cancelled() or scope.cancelled_caught
            if client.error is not None:
                self.errors.append(client.error)

    async def _within(self, scope: CancelScope, client: Client) -> None:
        with scope:
            await client.ask()


def app_with(get_session: Callable[..., Any], kind: str) -> FastAPI:
    """Return an app that writes a row for a number, and rejects every fifth."""
    app = FastAPI()
    SessionDep = Annotated[Any, Depends(get_session)]

    def reject_some(number: int) -> None:
        if number % 5 == 0:
            raise HTTPException(400)

    if kind == "async session":

        @app.get("/{number}", status_code=201)
        async def endpoint(number: int, session: SessionDep) -> None:
            await read(session)
            await write(session, str(number))
            reject_some(number)

    elif kind == "sync session":

        @app.get("/{number}", status_code=201)
        async def async_endpoint(number: int, session: SessionDep) -> None:
            # Written by the exit, as a loop that waits for a connection or for SQLite
            # would not get to ending those who have it.
            session.add(Note(text=str(number)))
            reject_some(number)

    else:

        @app.get("/{number}", status_code=201)
        def sync_endpoint(number: int, session: SessionDep) -> None:
            in_thread(write, session, str(number))
            # One call of the session, which fetches too: what a thread that was
            # cancelled fetches later, it fetches from a connection of others.
            session.scalar(select(Note.id).limit(1))
            reject_some(number)

    return app


SMALL = {"pool_size": 3, "max_overflow": 0}


# aiosqlite lets go of a connection whose opening is cancelled, without closing it.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored .*<sqlite3.Conn:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("kind", ["async session", "sync session", "thread"])
async def test_hammer(
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., AsyncEngine],
    observer: Engine,
    caplog: pytest.LogCaptureFixture,
    tried: Counter[str],
    kind: str,
) -> None:
    """Nothing leaks, nothing is logged, and each answer tells what is so of its row."""
    engine: Any
    if kind == "async session":
        if not OUTLASTS_TWO:
            pytest.skip("SQLAlchemy loses connections that are cancelled twice")
        # So that nobody who reads keeps others from writing: a statement that was
        # cancelled goes on reading until the next collection; see test_cancellation.
        with observer.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        engine = make_async_engine(**SMALL, pool_timeout=30)
        get_session, pooled = async_session_dependency(engine), engine.sync_engine
    else:
        engine = pooled = make_engine(**SMALL, pool_timeout=30)
        get_session = session_dependency(engine)
    hammer = Hammer(app_with(get_session, kind))
    bystanders = asyncio.all_tasks()
    gc.disable()
    try:
        await hammer.run(REQUESTS)
        leaked = pooled.pool.checkedout()
    finally:
        gc.enable()
        # So that what is complained of then is complained of here.
        gc.collect()
    tasks = asyncio.all_tasks() - bystanders
    told = {"requests": REQUESTS, "requests, cancelled": hammer.cancelled}
    tried.update({**told, "requests, connections left out": leaked})

    assert leaked == 0, hammer
    assert hammer.wrong(stored(observer)) == [], hammer
    assert hammer.errors == [], hammer
    assert {task.get_coro().__name__ for task in tasks} <= LEFT_BY_STATEMENT, hammer
    logged = [record.getMessage() for record in caplog.records]
    assert [told for told in logged if not by_upstream(kind, told)] == [], hammer
    assert hammer.cancelled > REQUESTS / 10, hammer


def by_upstream(kind: str, message: str) -> bool:
    """Tell what SQLAlchemy logs of an async session that is cancelled in its block."""
    known = ("_terminate_graceful_close", "Error closing cursor")
    return kind == "async session" and any(each in message for each in known)


@pytest.mark.skipif(not EXHAUSTIVE, reason="it waits for the connections it has lost")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.allow_session_leaks(reason="it counts what is left out")
async def test_get_session_by_hand(observer: Engine) -> None:
    """The same hammer breaks a get_session that is written by hand."""
    engine = create_engine(observer.url, **SMALL, pool_timeout=0.1)

    def get_session() -> Iterator[Session]:
        session = Session(engine)
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise
        finally:
            session.close()

    hammer = Hammer(app_with(get_session, "thread"))
    gc.disable()
    try:
        await hammer.run(300)
        leaked = engine.pool.checkedout()  # type: ignore[attr-defined]
    finally:
        gc.enable()
        engine.dispose()
    kinds = {type(error) for error in hammer.errors}
    assert leaked or IllegalStateChangeError in kinds
