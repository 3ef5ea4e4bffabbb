"""safesession's own ways to hold a session, work for each, and what is seen after."""

import asyncio
import operator
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

import pytest
from fastapi import Depends
from pymysql.constants import SERVER_STATUS
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

import safesession
from models import Note, Reply
from safesession import ScopeMisuse, async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing._harness import Body, Harness, InAsyncWith, InTask, InWith
from safesession.testing._request import InRequest
from safesession.testing._trial import links_of

OWN_FILES = set(Path(safesession.__file__).parent.glob("*.py"))


class Habitat:
    """One of the ways, over one engine, with options for each run."""

    harness: Harness

    def __init__(self, bind: Any) -> None:
        self.bind = bind
        self.engine: Engine = getattr(bind, "sync_engine", bind)
        self.options: dict[str, Any] = {}

    def run(self, body: Body, **options: Any) -> BaseException | None:
        """Run `body` on a session, and return the exception that left, if any."""
        self.options = options
        return self.harness.run(body)

    def close(self) -> None:
        if isinstance(self.harness, InTask) and self.bind is not self.engine:
            self.harness.wait_for(dispose(self.bind))
        else:
            self.engine.dispose()
        self.harness.close()


class ScopeHabitat(Habitat):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.harness = InWith(lambda: session_scope(engine, **self.options))


class AsyncScopeHabitat(Habitat):
    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.harness = InAsyncWith(lambda: async_session_scope(engine, **self.options))


class RequestHabitat(Habitat):
    factory = staticmethod(session_dependency)

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.harness = InRequest(Depends(self.factory(engine)))

    def run(self, body: Body, **options: Any) -> BaseException | None:
        self.harness.depends = Depends(self.factory(self.bind, **options))
        return self.harness.run(body)


class AsyncRequestHabitat(RequestHabitat):
    factory = staticmethod(async_session_dependency)


HABITATS = (ScopeHabitat, AsyncScopeHabitat, RequestHabitat, AsyncRequestHabitat)


async def dispose(engine: AsyncEngine) -> None:
    """Dispose of the engine, and wait for the threads of its connections to end."""
    await engine.dispose()
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 1)


def left_by(scope: AbstractContextManager[Session], body: Body) -> BaseException | None:
    return InWith(lambda: scope).run(body)


async def left_by_async(
    scope: AbstractAsyncContextManager[AsyncSession], body: Body
) -> BaseException | None:
    return await InAsyncWith(lambda: scope).left_by(body)


class Looks:
    """What the contract's point 1 wants unchanged of an exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._links = links_of(error)

    def assert_unchanged(self, left: BaseException | None) -> None:
        assert left is self._error
        assert all(map(operator.is_, links_of(left), self._links))
        files = {Path(code.co_filename) for code, _ in lines(left.__traceback__)}
        assert files.isdisjoint(OWN_FILES)


def lines(traceback: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code, traceback.tb_lineno
        traceback = traceback.tb_next


def in_transaction(driver_connection: Any) -> bool:
    """Ask a driver, whose word is not SQLAlchemy's, whether a transaction is open."""
    match type(driver_connection).__module__.partition(".")[0]:
        case "psycopg":
            return bool(driver_connection.info.transaction_status)
        case "asyncpg":
            return bool(driver_connection.is_in_transaction())
        case "pymysql":
            status = driver_connection.server_status
            return bool(status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)
        case "asyncmy":
            return bool(driver_connection.get_transaction_status())
    return bool(driver_connection.in_transaction)


def assert_nothing_left(habitat: Habitat, session: Session, kept: list[str]) -> None:
    """Check points 2, 3 and 7 after a scope that should have kept `kept`."""
    assert habitat.engine.pool.checkedout() == 0
    assert not session.in_transaction()
    # The session of a cancelled request refuses before SQLAlchemy does.
    refusals = (InvalidRequestError, ScopeMisuse)
    with pytest.raises(refusals, match=r"permanently closed|request .* was cancelled"):
        session.execute(text("SELECT 1"))
    assert_usable(habitat, kept)


def assert_usable(habitat: Habitat, kept: list[str]) -> None:
    """Check that the next scope finds a clean connection, and can commit."""
    found: list[str] = []

    def look_and_add(session: Session) -> None:
        assert not in_transaction(session.connection().connection.driver_connection)
        found.extend(session.scalars(select(Note.text).order_by(Note.text)))
        session.add(Note(text="next"))

    assert habitat.run(look_and_add) is None
    assert found == sorted(kept)
    assert habitat.engine.pool.checkedout() == 0


class Add:
    """Adds and flushes a note, and has `error` raised after it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    def __call__(self, session: Session) -> BaseException | None:
        self.session = session
        session.add(Note(text="kept?"))
        session.flush()
        return self._error


class AddOrphan(Add):
    """Writes what the database will refuse at COMMIT."""

    def __call__(self, session: Session) -> BaseException | None:
        session.add(Reply(note_id=-1))
        return super().__call__(session)


def pool_reset(mode: str | None) -> Any:
    """Return how a pool writes down its `reset_on_return`."""
    pool = QueuePool(lambda: None, reset_on_return=mode)  # type: ignore[arg-type]
    return pool._reset_on_return
