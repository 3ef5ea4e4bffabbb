"""`verify` finds the faults of factories that are written for that."""

import logging
from collections.abc import Callable, Iterator
from contextlib import (
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from safesession import session_scope
from safesession.fastapi import session_dependency
from safesession.testing import verify
from verified import async_by_hand, broken, dependency, leaking

# Held on to, as by a registry: else a session is gone when its request is.
KEPT: dict[int, Session] = {}


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_timeout=1)


class Swallowing:
    """A context manager that holds back whatever is raised."""

    def __init__(self, engine: Engine) -> None:
        self.session = Session(engine)

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, exc_type: object, *rest: object) -> bool:
        if exc_type is None:
            self.session.commit()
        self.session.close()
        return True


@leaking
def test_swallowing_is_found(engine: Engine) -> None:
    """An exception that is held back, and an interrupt of the cleanup."""
    report = verify(lambda: Swallowing(engine))

    assert report.broken[1].found == (
        "the block raised an exception, and no exception reached the caller"
    )
    assert report.broken[1].example == "raise error"


@contextmanager
def committing_always(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        try:
            yield session
        finally:
            with suppress(SQLAlchemyError):
                session.commit()


def test_work_that_is_committed_all_the_same_is_found(engine: Engine) -> None:
    """A commit in `finally` keeps what should be gone, and hides that it failed."""
    report = verify(lambda: committing_always(engine))

    assert report.broken[2].found == (
        "the work failed, and this is committed: the row 'row-1'"
    )
    assert (
        report.broken[4].found
        == "the commit failed, and no exception reached the caller"
    )
    assert report.broken[6].found == (
        "nothing was written, and no exception reached the caller"
    )


@contextmanager
def never_closing(engine: Engine) -> Iterator[Session]:
    session = KEPT[0] = Session(engine)
    try:
        yield session
    except BaseException:
        session.rollback()
        raise
    session.commit()


@leaking
def test_session_that_stays_open_is_found(engine: Engine) -> None:
    """A session that was not closed holds what it has loaded."""
    report = verify(lambda: never_closing(engine))
    KEPT.clear()

    assert report.broken[3].found == (
        "the session is not closed: it still holds the objects it has loaded"
    )


@contextmanager
def logging_all(engine: Engine) -> Iterator[Session]:
    try:
        with session_scope(engine) as session:
            yield session
    except SQLAlchemyError:
        logging.getLogger("service").exception("failed")
        raise


def test_parameters_in_the_log_are_found(engine: Engine) -> None:
    """A factory that logs SQLAlchemy's errors logs what was to be stored."""
    report = verify(lambda: logging_all(engine))

    assert report.broken[15].found == (
        "a log record or a note of the exception holds what was to be stored"
    )


@contextmanager
def relinking(engine: Engine) -> Iterator[Session]:
    try:
        with session_scope(engine) as session:
            yield session
    except Exception as error:
        raise error from LookupError()


def test_another_cause_is_found(engine: Engine) -> None:
    """An exception that leaves with a cause that it had not."""
    report = verify(lambda: relinking(engine))

    assert report.broken[1].found == (
        "the exception has another __cause__ or __context__ than in the block"
    )


@leaking
def test_generator_around_a_scope(engine: Engine) -> None:
    """A scope in a generator is answered too early, and there are two of them."""
    report = verify(dependency(engine))

    assert {10, 12} <= report.broken.keys() <= {3, 7, 9, 10, 12}
    assert report.broken[10].found == "the client was answered before the commit"
    assert report.broken[12].found == "the request was given two sessions"
    assert report.broken[12].example == (
        "def endpoint(one = Depends(get_session), "
        "other = Depends(get_session, use_cache=False)):\n"
        "    pass"
    )


class Forgetful:
    """A dependency as a callable object, which ends nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self) -> Iterator[Session]:
        session = KEPT[len(KEPT)] = Session(self._engine)
        yield session


@leaking
def test_dependency_that_ends_nothing(make_engine: Callable[..., Engine]) -> None:
    """Each promise about what is left behind is broken where nothing is ended."""
    engine = make_engine(poolclass=NullPool, connect_args={"timeout": 0.1})
    report = verify(Forgetful(engine))
    # Whose connections are closed by now, which they do not stumble over.
    for session in KEPT.values():
        session.close()
    KEPT.clear()

    found = {number: finding.found for number, finding in report.broken.items()}
    assert found[3] == "the session is still in a transaction"
    assert found[10] == ("the client was answered while the transaction was open")
    assert found[11] == (
        "the client was told 400 as it should be, but the connection is not back in "
        "the pool"
    )
    assert found[13] == "the connection is not back in the pool"
    assert found[14] == "100 connections are not back in the pool"


@leaking
def test_statuses_of_requests_at_once(engine: Engine) -> None:
    """A dependency that answers what the endpoint has raised."""

    def answering() -> Iterator[Session]:
        try:
            with session_scope(engine) as session:
                yield session
        except HTTPException as error:
            raise HTTPException(418) from error

    report = verify(answering)

    assert report.broken[11].found == "the client was told 418, and not 400"
    assert report.broken[14].found == "100 clients were told 418, and not 409"


@leaking
def test_async_factories_by_hand(async_engine: AsyncEngine) -> None:
    """Async sessions are held against the same."""

    by_hand = asynccontextmanager(async_by_hand(async_engine))

    assert {1, 5, 7} <= broken(by_hand)
    assert {5, 6, 7} <= broken(async_sessionmaker(async_engine))


class Answering:
    """Has other exceptions leave than those of the database."""

    def __init__(self, engine: Engine) -> None:
        self._scope = session_scope(engine)

    def __enter__(self) -> Session:
        session: Session = self._scope.__enter__()
        return session

    def __exit__(self, *exc_info: Any) -> None:
        try:
            self._scope.__exit__(*exc_info)
        except SQLAlchemyError as error:
            raise LookupError from error
        if isinstance(exc_info[1], SQLAlchemyError):
            raise LookupError from exc_info[1]


def test_other_exceptions_than_the_database_s_are_found(engine: Engine) -> None:
    """What the database refuses, in the block or at its end, leaves as it is."""
    report = verify(lambda: Answering(engine))

    assert report.broken[1].found == (
        "the block raised an exception, and another one reached the caller: LookupError"
    )
    assert report.broken[1].example == (
        'session.add_all([Row(text="row-1"), Row(text="row-1")])\nsession.flush()'
    )
    assert report.broken[4].found == (
        "the commit failed, and another one reached the caller: LookupError"
    )
    assert report.broken[4].example == (
        'session.add_all([Row(text="row-1"), Row(text="row-1")])'
    )


class Committing(Swallowing):
    """Commits before a refusal leaves, as to keep a record of it."""

    def __exit__(self, exc_type: object, *rest: object) -> bool:
        if exc_type in (None, HTTPException):
            self.session.commit()
        self.session.close()
        return False


@leaking
def test_commit_beside_a_refusal_is_found(engine: Engine) -> None:
    """An HTTPException is among the exceptions of a block, where FastAPI is there."""
    report = verify(lambda: Committing(engine))

    assert report.broken[2].example == (
        'session.add(Row(text="row-1"))\nsession.flush()\nraise error\n'
        "# error is HTTPException(400)"
    )


def test_request_whose_work_is_committed_beside_its_refusal(engine: Engine) -> None:
    """The client is told what it should be, and yet there is something to be told."""
    report = verify(session_dependency(engine, commit_on=Exception), ignore={9})

    assert report.broken[11].found == (
        "the client was told 400 as it should be, but the row is committed"
    )
    assert report.broken[13].found == "the endpoint failed, and its row is committed"
