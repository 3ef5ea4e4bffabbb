"""503 where the database is not to be had, and nothing else changed by the call."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from apps import get, read
from models import Note, stored
from safesession.fastapi import (
    add_exception_handlers,
    async_session_dependency,
    session_dependency,
)

pytestmark = pytest.mark.anyio
pytest_plugins = ("fastapi_fixtures",)

SECRET = "hunter2"


def service(get_session: Callable[..., Any]) -> FastAPI:
    """Return an app that reads, one that writes with the commit, and its 503."""
    app = FastAPI()
    SessionDep = Annotated[Any, Depends(get_session)]

    @app.get("/")
    async def query(session: SessionDep) -> Any:
        return await read(session)

    @app.get("/add")
    async def add(session: SessionDep) -> None:
        session.add(Note(text=SECRET))

    add_exception_handlers(app)
    return app


async def assert_503(app: FastAPI, path: str, log: pytest.LogCaptureFixture) -> None:
    response = await get(app, path)

    assert (503, "1", {"detail": "Service Unavailable"}) == (
        response.status_code,
        response.headers["Retry-After"],
        response.json(),
    )
    (record,) = [record for record in log.records if record.name == "safesession"]
    assert ("ERROR", True) == (
        record.levelname,
        record.getMessage().startswith("safesession: answered 503: "),
    )
    assert SECRET not in str(response.headers) + log.text


@pytest.mark.parametrize("factory", [session_dependency, async_session_dependency])
async def test_missing_bind(
    factory: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A bind that is not configured is a 503, and the log says why."""
    await assert_503(service(factory(lambda: None)), "/", caplog)

    (message,) = caplog.messages
    assert message.startswith(
        "safesession: answered 503: safesession.errors.EngineNotConfigured: "
        f"{factory.__name__}() has no engine to open a session on: the bind is None."
    )


@pytest.mark.parametrize("path", ["/", "/add"])
async def test_pool_timeout(
    make_engine: Callable[..., Engine], path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool that has no connection to give is a 503, in the endpoint or after it."""
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0)

    with engine.connect():
        await assert_503(service(session_dependency(engine)), path, caplog)


@pytest.mark.parametrize("path", ["/", "/add"])
async def test_pool_timeout_of_an_async_engine(
    make_async_engine: Callable[..., AsyncEngine],
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So is one of an async engine."""
    engine = make_async_engine(pool_size=1, max_overflow=0, pool_timeout=0)

    async with engine.connect():
        await assert_503(service(async_session_dependency(engine)), path, caplog)


@pytest.mark.parametrize("path", ["/", "/add"])
@pytest.mark.parametrize(
    "driver", ["pysqlite", "aiosqlite", "psycopg", "psycopg_async", "asyncpg"]
)
async def test_no_connection(
    tmp_path: Path,
    closed_port: int,
    driver: str,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database that cannot be opened is a 503, whatever the driver calls it."""
    if driver.endswith("sqlite"):
        url = f"sqlite+{driver}:///{tmp_path}/none/{SECRET}.db"
    else:
        url = f"postgresql+{driver}://user:{SECRET}@127.0.0.1:{closed_port}/{SECRET}"
    if driver in ("pysqlite", "psycopg"):
        get_session = session_dependency(create_engine(url))
    else:
        get_session = async_session_dependency(create_async_engine(url))

    before = set(threading.enumerate())
    await assert_503(service(get_session), path, caplog)
    if driver == "aiosqlite":
        await end_of_aiosqlite(set(threading.enumerate()) - before)


async def end_of_aiosqlite(threads: set[threading.Thread]) -> None:
    """Wait for the thread of a connection that failed: it needs the event loop."""
    for thread in threads:
        if "_connection_worker_thread" in thread.name:
            await to_thread.run_sync(thread.join, 5)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_connection_that_asyncpg_is_refused(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A PostgreSQL that gives no connection is a 503, whatever asyncpg raises."""

    async def connect() -> None:
        raise error

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)

    await assert_503(service(async_session_dependency(engine)), "/", caplog)


def lost(context: Any) -> None:
    context.is_disconnect = True


@pytest.mark.parametrize("path", ["/", "/add"])
async def test_connection_lost_in_a_statement(
    database: Any,
    make_engine: Callable[..., Engine],
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A connection that is lost in a statement is a 503: nothing was committed."""
    app = service(database.get_session())
    assert 200 == (await get(app)).status_code

    def fail(*args: Any) -> None:
        raise sqlite3.OperationalError(f"server at {SECRET} went away")

    event.listen(database.engine, "do_execute", fail)
    event.listen(database.engine, "handle_error", lost)

    await assert_503(app, path, caplog)
    assert [] == stored(make_engine())


async def test_connection_lost_in_the_commit(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is lost in the COMMIT is a 500: the work may have been committed."""
    app = service(database.get_session())
    assert 200 == (await get(app)).status_code

    def fail(connection: Any) -> None:
        raise sqlite3.OperationalError("server went away")

    monkeypatch.setattr(database.engine.dialect, "do_commit", fail)
    event.listen(database.engine, "handle_error", lost)

    assert 500 == (await get(app, "/add")).status_code


async def test_retry_after() -> None:
    """The seconds to wait are the app's to say."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(session_dependency(None))])(lambda: None)
    add_exception_handlers(app, retry_after=30)

    assert "30" == (await get(app)).headers["Retry-After"]


async def test_cors() -> None:
    """The 503 has the headers of CORS, so that a browser shows it to its page."""
    app = service(session_dependency(None))
    app.add_middleware(CORSMiddleware, allow_origins=["http://page"])

    response = await get(app, headers={"Origin": "http://page"})

    assert (503, "http://page") == (
        response.status_code,
        response.headers["Access-Control-Allow-Origin"],
    )


async def test_without_the_call() -> None:
    """An app that does not ask for the 503 has none."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(session_dependency(None))])(lambda: None)

    assert 500 == (await get(app)).status_code
