"""What asking for the 503 leaves as it is: every other error, and its handler."""

import sqlite3
import threading
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import create_async_engine

from apps import client, get, read, talk, while_no_thread_is_free, write
from safesession import EngineNotConfigured
from safesession.fastapi import (
    add_exception_handlers,
    async_session_dependency,
    session_dependency,
)

pytestmark = pytest.mark.anyio
pytest_plugins = ("fastapi_fixtures",)


def handled_by(request: Any, error: Exception) -> JSONResponse:
    told = {"handled": type(error).__name__, "path": request.url.path}
    return JSONResponse(told, status_code=418)


async def handle_async(request: Any, error: Exception) -> JSONResponse:
    return handled_by(request, error)


def handle_sync(request: Any, error: Exception) -> JSONResponse:
    return handled_by(request, error)


def raising(error: BaseException) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> None:
        raise error

    return app


def conflict() -> IntegrityError:
    return IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE"))


@pytest.mark.parametrize("handler", [handle_async, handle_sync], ids=["async", "sync"])
@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("handled", [IntegrityError, SQLAlchemyError, Exception])
async def test_handlers_of_the_app(
    database: Any, handled: type[Exception], order: str, handler: Any
) -> None:
    """An error that is no absence of the database is the app's own to handle."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        await write(session)
        await write(session)

    if order == "before":
        app.add_exception_handler(handled, handler)
    add_exception_handlers(app)
    if order == "after":
        app.add_exception_handler(handled, handler)

    response = await get(app)

    assert (418, {"handled": "IntegrityError", "path": "/"}) == (
        response.status_code,
        response.json(),
    )


@pytest.mark.parametrize("handler", [handle_async, handle_sync], ids=["async", "sync"])
@pytest.mark.parametrize("handled", [DBAPIError, OSError])
async def test_handlers_of_the_same_classes(
    handled: type[Exception], handler: Any
) -> None:
    """A handler that the app had for DBAPIError or OSError still has the others."""
    error = conflict() if handled is DBAPIError else FileNotFoundError("a file")
    app = raising(error)
    app.add_exception_handler(handled, handler)
    add_exception_handlers(app)

    assert 418 == (await get(app)).status_code


@pytest.mark.parametrize("handled", [SQLAlchemyError, DBAPIError, OSError, Exception])
async def test_unavailable_comes_first(
    closed_port: int, handled: type[Exception]
) -> None:
    """A handler that the app had for wider classes does not have the 503's."""
    app = FastAPI()
    app.add_exception_handler(handled, handle_sync)
    url = f"postgresql+asyncpg://127.0.0.1:{closed_port}"
    get_session = async_session_dependency(create_async_engine(url))

    @app.get("/")
    async def query(session: Annotated[Any, Depends(get_session)]) -> Any:
        return await read(session)

    add_exception_handlers(app)

    assert 503 == (await get(app)).status_code


async def test_asked_for_twice() -> None:
    """Asking for the 503 twice is asking once, with the later Retry-After."""
    app = FastAPI()
    app.get("/", dependencies=[Depends(session_dependency(None))])(lambda: None)
    add_exception_handlers(app)
    add_exception_handlers(app, retry_after=2)

    assert "2" == (await get(app)).headers["Retry-After"]


async def test_error_without_a_handler() -> None:
    """An error that the app does not handle is the same object at the server."""
    raised = conflict()
    app = raising(raised)
    add_exception_handlers(app)

    with pytest.raises(IntegrityError) as caught:
        async with client(app, raising=True) as http:
            await http.get("/")

    assert raised is caught.value
    assert (None, None) == (raised.__cause__, raised.__context__)
    assert 500 == (await get(app)).status_code


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("a file of the endpoint's own"),
        ConnectionRefusedError("another service"),
        TimeoutError("another service"),
        OperationalError("SELECT", {}, sqlite3.OperationalError("no such table")),
        LookupError("a key"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_of_the_endpoint(error: Exception) -> None:
    """An error of the endpoint's own is a 500 as ever, and the same at the server."""
    app = raising(error)
    add_exception_handlers(app)

    with pytest.raises(type(error)) as caught:
        async with client(app, raising=True) as http:
            await http.get("/")

    assert error is caught.value
    assert 500 == (await get(app)).status_code


async def test_error_of_code_that_has_no_module() -> None:
    """Code that is made as it runs, as a template is, may raise what it likes."""
    app = FastAPI()

    @app.get("/")
    async def endpoint() -> None:
        exec("raise OSError('no such template')", {})

    add_exception_handlers(app)

    with pytest.raises(OSError, match="no such template"):
        async with client(app, raising=True) as http:
            await http.get("/")


async def test_async_handler_needs_no_thread() -> None:
    """An async handler of the app's answers while no worker thread is free."""
    app = raising(conflict())
    app.add_exception_handler(SQLAlchemyError, handle_async)
    add_exception_handlers(app)

    assert 418 == await while_no_thread_is_free(app, "/")


async def test_error_after_the_response() -> None:
    """An error of a background task is the cause of what Starlette makes of it."""
    app = FastAPI()
    raised = ConnectionRefusedError("the mail server")

    def send_mail() -> None:
        raise raised

    @app.get("/")
    def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(send_mail)

    add_exception_handlers(app)

    with pytest.raises(RuntimeError, match="response already started") as caught:
        async with client(app, raising=True) as http:
            await http.get("/")

    assert raised is caught.value.__cause__


async def test_websocket() -> None:
    """A WebSocket's error reaches the server as it is."""
    app = FastAPI()
    add_exception_handlers(app)

    @app.websocket("/")
    async def endpoint(
        websocket: WebSocket,
        session: Annotated[Any, Depends(session_dependency(None))],
    ) -> None:
        raise AssertionError("the endpoint is not to be reached")

    with pytest.raises(EngineNotConfigured):
        await talk(app, "/", [])


async def test_connection_that_is_used_in_another_thread(tmp_path: Path) -> None:
    """A driver that refuses a thread is no database that cannot be reached."""
    engine = create_engine(
        f"sqlite:///{tmp_path / 'test.db'}", connect_args={"check_same_thread": True}
    )
    app = FastAPI()
    get_session = session_dependency(engine)

    @app.get("/")
    def endpoint(session: Annotated[Any, Depends(get_session)]) -> None:
        connection = session.connection()
        failures: list[BaseException] = []

        def execute() -> None:
            try:
                connection.exec_driver_sql("SELECT 1")
            except DBAPIError as error:
                failures.append(error)

        thread = threading.Thread(target=execute)
        thread.start()
        thread.join()
        session.invalidate()
        raise failures[0]

    add_exception_handlers(app)

    assert 500 == (await get(app)).status_code
    engine.dispose()
