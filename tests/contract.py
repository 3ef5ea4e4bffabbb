"""The contract's points 1 to 7, to be held against every way of holding a session.

A habitat runs a body of work on a session of its own and returns what left it; the
checks are the same in all of them.
"""

import asyncio
import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
)
from types import TracebackType
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from models import Note
from safesession import async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency

# Works on a session, and returns what is to be raised inside the scope.
Body = Callable[[Session], BaseException | None]


class Habitat:
    """A way to hold a session, over one engine."""

    engine: Engine

    def run(self, body: Body, **options: Any) -> BaseException | None:
        """Run `body` on a session, and return the exception that left, if any."""
        raise NotImplementedError

    def carries(self, error: BaseException) -> bool:
        """Tell whether `error` would arrive as it is if there were no scope."""
        return True

    def close(self) -> None:
        self.engine.dispose()


class InScope(Habitat):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(self, body: Body, **options: Any) -> BaseException | None:
        return left_by(session_scope(self.engine, **options), body)


class InAsyncScope(Habitat):
    def __init__(self, async_engine: AsyncEngine) -> None:
        self.engine = async_engine.sync_engine
        self._async_engine = async_engine
        self._loop = asyncio.Runner()

    def run(self, body: Body, **options: Any) -> BaseException | None:
        scope = async_session_scope(self._async_engine, **options)
        return self._loop.run(left_by_async(scope, body))

    def close(self) -> None:
        self._loop.run(dispose(self._async_engine))
        self._loop.close()


class InRequest(Habitat):
    """An endpoint, called in process with nothing between it and the test."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._loop = asyncio.Runner()

    def app(self, body: Body, **options: Any) -> FastAPI:
        app = FastAPI()
        get_session = session_dependency(self.engine, **options)

        @app.get("/")
        async def endpoint(session: Session = Depends(get_session)) -> None:
            raise_if_any(body(session))

        return app

    def run(self, body: Body, **options: Any) -> BaseException | None:
        return self._loop.run(left_by_request(self.app(body, **options)))

    def carries(self, error: BaseException) -> bool:
        # A coroutine cannot raise StopIteration; and contextlib, which FastAPI runs
        # dependencies with, cannot set the traceback of a frozen dataclass.
        may_leave = not issubclass(type(error), StopIteration)
        return may_leave and accepts_attributes(error)

    def close(self) -> None:
        self._loop.close()
        super().close()


class InAsyncRequest(InRequest):
    def __init__(self, async_engine: AsyncEngine) -> None:
        super().__init__(async_engine.sync_engine)
        self._async_engine = async_engine

    def app(self, body: Body, **options: Any) -> FastAPI:
        app = FastAPI()
        get_session = async_session_dependency(self._async_engine, **options)

        @app.get("/")
        async def endpoint(session: AsyncSession = Depends(get_session)) -> None:
            raise_if_any(await session.run_sync(body))

        return app

    def close(self) -> None:
        self._loop.run(dispose(self._async_engine))
        self._loop.close()


async def dispose(engine: AsyncEngine) -> None:
    """Dispose of the engine, and wait for the threads of its connections to end."""
    await engine.dispose()
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 1)


def raise_if_any(error: BaseException | None) -> None:
    if error is not None:
        raise error


def left_by(scope: AbstractContextManager[Session], body: Body) -> BaseException | None:
    try:
        with scope as session:
            raise_if_any(body(session))
    except BaseException as error:
        return error
    return None


async def left_by_async(
    scope: AbstractAsyncContextManager[AsyncSession], body: Body
) -> BaseException | None:
    try:
        async with scope as session:
            raise_if_any(await session.run_sync(body))
    except BaseException as error:
        return error
    return None


async def request(app: FastAPI, send: Callable[..., Any]) -> None:
    """Have `app` serve a GET in this very task, with nothing in between."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [],
        "query_string": b"",
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    await app(scope, receive, send)


async def left_by_request(app: FastAPI) -> BaseException | None:
    async def send(message: dict[str, Any]) -> None:
        pass

    try:
        await request(app, send)
    except BaseException as error:
        return error
    return None


class Looks:
    """What the contract's point 1 wants unchanged of an exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._links = (
            error.__cause__,
            error.__context__,
            error.__suppress_context__,
        )

    def assert_unchanged(self, left: BaseException | None) -> None:
        assert left is self._error
        links = (left.__cause__, left.__context__, left.__suppress_context__)
        assert all(map(operator.is_, links, self._links))
        assert not any("safesession/" in file for file in files(left.__traceback__))


def lines(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_name, traceback.tb_lineno
        traceback = traceback.tb_next


def files(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next


def accepts_attributes(error: BaseException) -> bool:
    try:
        error.__traceback__ = error.__traceback__
    except Exception:
        return False
    return True


def assert_nothing_left(habitat: Habitat, session: Session, kept: list[str]) -> None:
    """Check points 2, 3 and 7 after a scope that should have kept `kept`."""
    assert habitat.engine.pool.checkedout() == 0
    assert not session.in_transaction()
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        session.execute(text("SELECT 1"))
    assert_usable(habitat, kept)


def assert_usable(habitat: Habitat, kept: list[str]) -> None:
    """Check that the next scope finds a clean connection, and can commit."""
    found: list[str] = []

    def look_and_add(session: Session) -> None:
        driver_connection = session.connection().connection.driver_connection
        assert driver_connection is not None
        assert not driver_connection.in_transaction
        found.extend(session.scalars(select(Note.text).order_by(Note.text)))
        session.add(Note(text="next"))

    assert habitat.run(look_and_add) is None
    assert found == sorted(kept)
    assert habitat.engine.pool.checkedout() == 0


@contextmanager
def failing(
    target: Any, name: str, error: BaseException, times: int = 1
) -> Iterator[None]:
    """Have a method of `target` raise, as no real database can be made to."""
    original = getattr(target, name)
    left = [error] * times

    def fail(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return original(*args, **kwargs)

    setattr(target, name, fail)
    try:
        yield
    finally:
        setattr(target, name, original)
