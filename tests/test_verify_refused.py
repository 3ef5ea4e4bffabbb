"""What `verify` cannot hold against the contract is refused, and why is said."""

from collections.abc import Callable, Iterator
from contextlib import (
    nullcontext,
)
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

from safesession import InvalidArgument, ScopeMisuse, session_scope
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing import verify
from verified import UNIT, notes_app, unconfigured


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_timeout=1)


def test_savepoint_is_refused(engine: Engine) -> None:
    """A SAVEPOINT in somebody's session is no session of one's own."""
    with (
        session_scope(engine) as outer,
        pytest.raises(InvalidArgument, match="given a SAVEPOINT in somebody's session"),
    ):
        verify(lambda: session_scope(outer))


def test_engine_for_each_session_is_refused(
    make_engine: Callable[..., Engine],
) -> None:
    """Faults and rows are of one engine."""
    with pytest.raises(InvalidArgument, match="bound to one engine, and then to"):
        verify(lambda: session_scope(make_engine()))


def test_sessions_that_refuse_writes_are_refused(engine: Engine) -> None:
    """A read_only factory is told apart from one that loses what was written."""
    with pytest.raises(InvalidArgument) as caught:
        verify(session_dependency(engine, read_only=True))

    assert str(caught.value).startswith(
        "verify() writes rows, and a session that it was given refused: "
        "safesession.errors.WriteRefused: This session is read_only, and was asked for "
        "a write: a flush of Row."
    )
    assert str(caught.value).endswith(
        "without read_only=True. Pass what gives sessions that may write; of a factory "
        "with read_only=True, the same one without it."
    )
    assert {"note", "reply"} == set(inspect(engine).get_table_names())


def test_database_that_is_not_written_to_is_refused(
    tmp_path: Path, make_engine: Callable[..., Engine]
) -> None:
    """Where the table cannot be made, that is said."""
    make_engine()
    engine = create_engine(f"sqlite:///file:{tmp_path}/test.db?mode=ro&uri=true")

    with pytest.raises(InvalidArgument, match=r"verify\(\) could not make its table: "):
        verify(lambda: session_scope(engine))

    engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("of_app", [True, False])
async def test_running_loop_is_refused(async_engine: AsyncEngine, of_app: bool) -> None:
    """Where a loop is running, the caller is told to leave it."""
    get_session = async_session_dependency(async_engine)

    with pytest.raises(ScopeMisuse) as caught:
        verify(notes_app(get_session) if of_app else get_session)

    assert str(caught.value) == (
        "verify() was called where an event loop is running, and it needs one of its "
        "own. Call it from a test that is not async."
    )


def test_dependency_that_needs_a_parameter_is_refused(engine: Engine) -> None:
    """What the client was told is in the error."""

    def of_tenant(tenant: str) -> Iterator[Session]:
        with session_scope(engine) as session:
            yield session

    with pytest.raises(InvalidArgument, match="no session to work on: the client is "):
        verify(of_tenant)


def test_nothing_asked_is_refused(engine: Engine) -> None:
    """A check that asks for nothing has nothing to say."""
    with pytest.raises(InvalidArgument, match="told to ignore all that it could ask"):
        verify(lambda: session_scope(engine), ignore=UNIT)


def in_memory() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool)


class Example:
    pass


@pytest.mark.parametrize(
    "factory, options, told",
    [
        (
            Example(),
            {},
            (
                "verify() got an object of type Example. Pass a sessionmaker, a "
                "callable that returns a context manager (as in lambda: "
                "session_scope(engine)), a dependency written for FastAPI, or an app."
            ),
        ),
        (
            Example,
            {},
            "verify() got the class Example. Pass a sessionmaker",
        ),
        (
            lambda: Example(),
            {},
            (
                "verify() got the function <lambda>(), which returned an object of "
                "type Example. Pass a sessionmaker, a callable"
            ),
        ),
        (
            sessionmaker(in_memory()),
            {},
            (
                "verify() got a session on a StaticPool, whose one connection shows "
                "nothing of what others would see. Use a database file, or a server."
            ),
        ),
        (
            sessionmaker(),
            {},
            (
                "verify() was given no session to work on: "
                "UnboundExecutionError. Pass what gives a Session or an AsyncSession "
                "that is bound to an engine, and needs nothing of the request."
            ),
        ),
        (
            sessionmaker(in_memory()),
            {"route": "/notes"},
            (
                "verify() got route='/notes' beside an object of type sessionmaker. A "
                "route is of an app: pass the FastAPI app, or leave route out."
            ),
        ),
        (
            sessionmaker(in_memory()),
            {"ignore": {*range(1, 8), *range(9, 16)}},
            "verify() got a session on a StaticPool",
        ),
        (
            lambda: nullcontext(Example()),
            {},
            "verify() was given no session to work on: TypeError. Pass what gives a",
        ),
        (
            sessionmaker(in_memory()),
            {"ignore": {8}},
            "verify() got ignore={8}. Pass numbers of promises that it asks for: 1, 2,",
        ),
        (
            notes_app(unconfigured),
            {"route": "/"},
            (
                "verify() found no parameter annotated as a session at the route '/' "
                "of the app, which has: /, /notes, /faulty. Name a route whose "
                "endpoint has one, or pass the dependency itself."
            ),
        ),
        (
            FastAPI(),
            {},
            (
                "verify() found no parameter annotated as a session at any route of "
                "the app, which has: no route."
            ),
        ),
    ],
)
def test_what_cannot_be_held_is_refused(
    factory: Any, options: dict[str, Any], told: str
) -> None:
    """What is no session factory is refused, with what to pass instead."""
    with pytest.raises(InvalidArgument) as caught:
        verify(factory, **options)

    assert str(caught.value).startswith(told)
