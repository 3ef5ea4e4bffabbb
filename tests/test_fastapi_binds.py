"""What a dependency opens its sessions on, and what it refuses."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import pytest
import sqlmodel
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from apps import client, get, write
from models import Base, Note, stored
from safesession import EngineNotConfigured, InvalidArgument
from safesession.fastapi import async_session_dependency, session_dependency

pytestmark = pytest.mark.anyio
pytest_plugins = ("fastapi_fixtures",)

FACTORIES = (session_dependency, async_session_dependency)


def writing(get_session: Callable[..., Any]) -> tuple[FastAPI, list[Any]]:
    """Return an app that writes a row, and a list of the sessions it has had."""
    app, seen = FastAPI(), []

    @app.get("/")
    async def endpoint(session: Annotated[Any, Depends(get_session)]) -> None:
        seen.append(session)
        if session is not None:
            await write(session)

    return app, seen


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("bind", [None, lambda: None], ids=["None", "callable"])
async def test_missing_bind(factory: Callable[..., Any], bind: Any) -> None:
    """A bind that is missing when a request comes is an EngineNotConfigured."""
    app, seen = writing(factory(bind))

    with pytest.raises(EngineNotConfigured, match=rf"^{factory.__name__}\(\) has no"):
        async with client(app, raising=True) as http:
            await http.get("/")

    assert [] == seen
    assert 500 == (await get(app)).status_code


@pytest.mark.parametrize("factory", FACTORIES)
async def test_missing_ok(
    factory: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """With missing_ok the endpoint has None for a session, and the log a warning."""
    app, seen = writing(factory(None, missing_ok=True))

    assert 200 == (await get(app)).status_code
    assert [None] == seen
    (record,) = [record for record in caplog.records if record.name == "safesession"]
    assert logging.WARNING == record.levelno
    assert f"{factory.__name__}() has no engine" in record.getMessage()


@pytest.mark.parametrize("factory", FACTORIES)
async def test_missing_ok_of_a_request_that_fails(factory: Callable[..., Any]) -> None:
    """An endpoint without a session may raise like one that has one."""
    app = FastAPI()

    @app.get("/")
    async def reject(
        session: Annotated[Any, Depends(factory(None, missing_ok=True))],
    ) -> None:
        raise HTTPException(400)

    assert 400 == (await get(app)).status_code


async def test_callable_is_asked_by_each_request(database: Any, engine: Engine) -> None:
    """A callable bind is asked when a request comes, so it may be configured late."""
    configured: list[Any] = [None]
    app, _ = writing(database.factory(lambda: configured[0]))

    assert 500 == (await get(app)).status_code
    configured[0] = database.bind
    assert 200 == (await get(app)).status_code
    assert ["kept"] == stored(engine)


async def test_sessionmaker(engine: Engine) -> None:
    """A sessionmaker's sessions are its own, with the settings it gives them."""

    class Own(Session):
        pass

    maker = sessionmaker(engine, class_=Own, expire_on_commit=False, info={"a": 1})
    app, seen = writing(session_dependency(maker))

    assert 200 == (await get(app)).status_code
    (session,) = seen
    assert isinstance(session, Own)
    assert ({"a": 1}, False) == (session.info, session.expire_on_commit)
    assert ["kept"] == stored(engine)


async def test_async_sessionmaker(async_engine: AsyncEngine, engine: Engine) -> None:
    """An async_sessionmaker's sessions are its own, with its settings."""

    class Own(AsyncSession):
        pass

    maker = async_sessionmaker(async_engine, class_=Own, expire_on_commit=True)
    app, seen = writing(async_session_dependency(maker))

    assert 200 == (await get(app)).status_code
    (session,) = seen
    assert isinstance(session, Own)
    assert session.sync_session.expire_on_commit
    assert ["kept"] == stored(engine)


async def test_sqlmodel_session(engine: Engine) -> None:
    """With class_ the session is SQLModel's."""
    app = FastAPI()
    get_session = session_dependency(engine, class_=sqlmodel.Session)

    @app.get("/")
    def endpoint(session: Annotated[sqlmodel.Session, Depends(get_session)]) -> Any:
        session.add(Note(text="kept"))
        return session.exec(sqlmodel.select(Note.text)).all()

    assert ["kept"] == (await get(app)).json()
    assert ["kept"] == stored(engine)


async def test_sqlmodel_async_session(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """With class_ the async session is SQLModel's."""
    app = FastAPI()
    get_session = async_session_dependency(async_engine, class_=SQLModelAsyncSession)

    @app.get("/")
    async def endpoint(
        session: Annotated[SQLModelAsyncSession, Depends(get_session)],
    ) -> Any:
        session.add(Note(text="kept"))
        return (await session.exec(sqlmodel.select(Note.text))).all()

    assert ["kept"] == (await get(app)).json()
    assert ["kept"] == stored(engine)


async def test_connection(make_engine: Callable[..., Engine]) -> None:
    """On a connection the session joins the transaction that its owner will end."""
    engine = make_engine(connect_args={"check_same_thread": False})
    with engine.connect() as connection:
        outer = connection.begin()
        app, _ = writing(session_dependency(connection))

        assert 200 == (await get(app)).status_code
        assert outer.is_active
        assert ["kept"] == list(connection.scalars(select(Note.text)))
        outer.rollback()

    assert [] == stored(engine)


async def test_in_memory_database() -> None:
    """In-memory SQLite with a StaticPool is one database for all threads."""
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
    )
    Base.metadata.create_all(engine)
    app, _ = writing(session_dependency(engine))

    assert 200 == (await get(app)).status_code
    assert ["kept"] == stored(engine)
    engine.dispose()


# Refused


def test_in_memory_database_of_each_thread() -> None:
    """In-memory SQLite whose pool gives each thread its own is refused at once."""
    engine = create_engine("sqlite://")
    event.listen(engine, "connect", lambda *_: pytest.fail("nothing is to be opened"))

    for bind in (engine, sessionmaker(engine)):
        with pytest.raises(InvalidArgument, match=r"SingletonThreadPool.*StaticPool"):
            session_dependency(bind)


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
    "URL": ("sqlite:///s3cret.db", "an object of type str", "create_engine()"),
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
