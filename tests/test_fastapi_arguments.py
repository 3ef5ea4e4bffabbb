"""What a dependency refuses: what was given, and what to pass instead."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import sqlmodel
from fastapi import HTTPException
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from apps import client, writing
from safesession import InvalidArgument, ScopeMisuse
from safesession.fastapi import async_session_dependency, session_dependency

pytestmark = pytest.mark.anyio
pytest_plugins = ("fastapi_fixtures",)

FACTORIES = (session_dependency, async_session_dependency)


def test_in_memory_database_of_each_thread() -> None:
    """In-memory SQLite whose pool gives each thread its own is refused at once."""
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda *_: pytest.fail("nothing is to be opened"))

    for bind in (engine, sessionmaker(engine)):
        with pytest.raises(InvalidArgument) as caught:
            session_dependency(bind)

        assert str(caught.value) == (
            "session_dependency() got an engine whose SingletonThreadPool gives each "
            "thread a connection of its own (with in-memory SQLite, a database of its "
            "own), and a request uses its session from several threads. Pass "
            "poolclass=StaticPool and connect_args={'check_same_thread': False} to "
            "create_engine(), or use a database file."
        )


async def test_in_memory_database_of_a_callable() -> None:
    """What a callable returns is refused by the request that asks for it."""
    engine = create_engine("sqlite://")
    app, seen = writing(session_dependency(lambda: engine))

    with pytest.raises(InvalidArgument, match="SingletonThreadPool"):
        async with client(app, raising=True) as http:
            await http.get("/")

    assert [] == seen


def generator() -> Iterator[Session]:
    yield Session()


async def async_generator() -> AsyncIterator[AsyncSession]:
    yield AsyncSession()


async def coroutine() -> None:
    pass


def session() -> Session:
    return Session()


SYNC_ENGINE = create_engine("sqlite:///unused.db")
ASYNC_ENGINE = create_async_engine("sqlite+aiosqlite:///unused.db")

PASS = "Pass an instance of Engine, Connection or sessionmaker, or a callable"
PASS_ASYNC = (
    "Pass an instance of AsyncEngine, AsyncConnection or async_sessionmaker, or a "
    "callable"
)
BAD_BINDS = {
    "session": (Session(), "an object of type Session", "pass its sessionmaker"),
    "session class": (Session, "the class Session", PASS),
    "async engine": (
        ASYNC_ENGINE,
        "an object of type AsyncEngine",
        "goes with async_session_dependency()",
    ),
    "async sessionmaker": (
        async_sessionmaker(ASYNC_ENGINE),
        "an object of type async_sessionmaker",
        "goes with async_session_dependency()",
    ),
    "async session": (
        AsyncSession(ASYNC_ENGINE),
        "an object of type AsyncSession",
        "goes with async_session_dependency()",
    ),
    "generator function": (
        generator,
        "the function generator()",
        "stands in its place",
    ),
    "async generator function": (
        async_generator,
        "the function async_generator()",
        "stands in its place",
    ),
    "context manager": (
        contextmanager(generator),
        "the function generator()",
        "stands in its place",
    ),
    "coroutine function": (coroutine, "the function coroutine()", PASS),
    "URL": ("sqlite:///s3cret.db", "an object of type str", "create_engine()"),
    "number": (1, "an object of type int", PASS),
}
BAD_ASYNC_BINDS = {
    "async session": (
        AsyncSession(ASYNC_ENGINE),
        "an object of type AsyncSession",
        "pass its sessionmaker",
    ),
    "engine": (
        SYNC_ENGINE,
        "an object of type Engine",
        "goes with session_dependency()",
    ),
    "sessionmaker": (
        sessionmaker(SYNC_ENGINE),
        "an object of type sessionmaker",
        "goes with session_dependency()",
    ),
    "context manager": (
        asynccontextmanager(async_generator),
        "the function async_generator()",
        "stands in its place",
    ),
    "URL": ("sqlite:///s3cret.db", "an object of type str", "create_async_engine()"),
    "number": (1, "an object of type int", PASS_ASYNC),
}


@pytest.mark.parametrize("bind, given, advice", BAD_BINDS.values(), ids=BAD_BINDS)
def test_wrong_bind(bind: Any, given: str, advice: str) -> None:
    """A wrong bind is refused at once: what was given, and what to pass instead."""
    with pytest.raises(InvalidArgument) as caught:
        session_dependency(bind)

    message = str(caught.value)
    assert f"session_dependency() got {given} as its bind. " in message
    assert advice in message
    assert message.endswith(" or sessionmaker, or a callable that returns one.")
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "bind, given, advice", BAD_ASYNC_BINDS.values(), ids=BAD_ASYNC_BINDS
)
def test_wrong_async_bind(bind: Any, given: str, advice: str) -> None:
    """So is a wrong bind of the async dependency."""
    with pytest.raises(InvalidArgument) as caught:
        async_session_dependency(bind)

    message = str(caught.value)
    assert f"async_session_dependency() got {given} as its bind. " in message
    assert advice in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    "returned, given",
    [(1, "type int"), (ASYNC_ENGINE, "type AsyncEngine"), (session, "session()")],
    ids=["number", "async engine", "callable"],
)
async def test_callable_that_returns_no_bind(returned: Any, given: str) -> None:
    """What a callable returns is checked by the request, and named with it."""

    def bind() -> Any:
        return returned

    app, _ = writing(session_dependency(bind))

    with pytest.raises(InvalidArgument) as caught:
        async with client(app, raising=True) as http:
            await http.get("/")

    assert f"{given} from the function bind() as its bind. " in str(caught.value)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("scope", ["app", None, ["function"]], ids=str)
def test_unknown_scope(factory: Callable[..., Any], scope: Any) -> None:
    """A scope that is neither "function" nor "request" is refused at once."""
    with pytest.raises(InvalidArgument) as caught:
        factory(None, scope=scope)

    assert (
        f"{factory.__name__}() got {scope!r} as its scope. Pass 'function' to end the "
        "transaction before the response is sent, or 'request' to end it after."
    ) == str(caught.value)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize(
    "commit_on, given",
    [
        (400, "an object of type int"),
        ((HTTPException, "no"), "an object of type str"),
        (HTTPException(400), "an object of type HTTPException"),
        (int, "the class int"),
    ],
    ids=["number", "tuple", "instance", "class"],
)
def test_wrong_commit_on(
    factory: Callable[..., Any], commit_on: Any, given: str
) -> None:
    """A commit_on that is not exception types is refused at once."""
    with pytest.raises(InvalidArgument) as caught:
        factory(None, commit_on=commit_on)

    assert (
        f"{factory.__name__}() got {given} in commit_on. Pass an exception class or a "
        "tuple of them, as in commit_on=(HTTPException,)."
    ) == str(caught.value)


@pytest.mark.parametrize(
    "factory, class_, wanted",
    [
        (session_dependency, AsyncSession, "Pass Session or"),
        (session_dependency, Session(), "Pass Session or"),
        (session_dependency, int, "Pass Session or"),
        (async_session_dependency, Session, "Pass AsyncSession or"),
    ],
)
def test_wrong_class(factory: Callable[..., Any], class_: Any, wanted: str) -> None:
    """A class_ that is no session class of its kind is refused at once."""
    with pytest.raises(InvalidArgument, match=f"as class_. {wanted}"):
        factory(None, class_=class_)


def test_class_beside_a_sessionmaker() -> None:
    """A class_ beside a sessionmaker is refused, as that has a class of its own."""
    with pytest.raises(
        InvalidArgument, match="class_ beside an object of type session"
    ):
        session_dependency(sessionmaker(SYNC_ENGINE), class_=sqlmodel.Session)


@pytest.mark.parametrize(
    "factory, scope",
    [
        (session_dependency, "session_scope()"),
        (async_session_dependency, "async_session_scope()"),
    ],
)
async def test_dependency_that_is_called(factory: Any, scope: str) -> None:
    """A `get_session` that is called by hand says what to call instead."""
    with pytest.raises(ScopeMisuse) as caught:
        await factory(None)()

    assert str(caught.value) == (
        "get_session() was called, and it is for Depends(get_session) alone. "
        f"Outside of a request use {scope}."
    )
