"""The same over a real uvicorn, with a client that sees what arrives when."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
from anyio import fail_after
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from apps import PLACES, SPELLINGS, in_thread, read, write
from models import Note, Reply, stored
from safesession.fastapi import (
    add_exception_handlers,
    async_session_dependency,
    session_dependency,
)

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
async def test_the_row_is_there_when_the_headers_are(
    database: Any, engine: Engine, serve: Callable[[Any], str], spell: Any
) -> None:
    """A client that has the headers, and no more yet, finds the work committed."""
    seen = threading.Event()

    def body() -> Iterator[bytes]:
        assert seen.wait(10)
        yield b"end"

    def respond() -> Response:
        return StreamingResponse(body(), status_code=201)

    # One server has all the places.
    app = FastAPI()
    depends = spell(database.get_session())
    for place in PLACES:
        app.mount(f"/{place.__name__}", place(depends, respond))
    url = serve(app)

    async with httpx.AsyncClient(base_url=url) as http:
        for place in PLACES:
            seen.clear()
            async with http.stream("POST", f"/{place.__name__}/notes") as response:
                assert (201, ["kept"]) == (response.status_code, stored(engine))
                assert 0 == database.engine.pool.checkedout()
                seen.set()
            with engine.begin() as connection:
                connection.exec_driver_sql("DELETE FROM note")


async def test_request_scope_commits_after_the_body(
    database: Any, engine: Engine, serve: Callable[[Any], str]
) -> None:
    """With scope="request" the row is not there before the stream has ended."""
    app = FastAPI()
    get_session = database.get_session(scope="request")
    seen, ended = threading.Event(), threading.Event()

    @app.get("/")
    def stream(session: Annotated[Any, Depends(get_session)]) -> Any:
        def body() -> Iterator[str]:
            in_thread(write, session)
            assert seen.wait(10)
            yield str(in_thread(read, session))

        return StreamingResponse(body())

    event.listen(database.engine, "checkin", lambda *_: ended.set())
    url = serve(app)

    async with httpx.AsyncClient() as http, http.stream("GET", url) as response:
        assert [] == stored(engine)
        ended.clear()
        seen.set()
        assert b"['kept']" == await response.aread()

    assert ended.wait(10)
    assert ["kept"] == stored(engine)


def service(database: Any) -> FastAPI:
    """Return an app whose requests fail in one way each."""
    app = FastAPI()
    SessionDep = Annotated[Any, Depends(database.get_session())]

    @app.exception_handler(IntegrityError)
    async def conflict(request: Any, error: IntegrityError) -> JSONResponse:
        return JSONResponse({}, status_code=409)

    @app.get("/400")
    async def bad_request(session: SessionDep) -> None:
        await write(session, "lost")
        raise HTTPException(400)

    @app.get("/401")
    def unauthorized(session: SessionDep) -> None:
        in_thread(write, session, "lost")
        raise HTTPException(401)

    @app.get("/409")
    async def commit_fails(session: SessionDep) -> None:
        session.add_all([Note(text="lost"), Reply(note_id=404)])

    @app.get("/422")
    async def invalid(session: SessionDep, number: int) -> None:
        raise AssertionError("the endpoint is not to be reached")

    @app.get("/500")
    async def unexpected(session: SessionDep) -> None:
        await write(session, "lost")
        raise LookupError

    return app


async def test_statuses(
    database: Any, engine: Engine, serve: Callable[[Any], str]
) -> None:
    """Each kind of failure has its own status, and none leaves a row."""
    async with httpx.AsyncClient(base_url=serve(service(database))) as http:
        for status in (400, 401, 409, 422, 500):
            assert status == (await http.get(f"/{status}")).status_code
            assert 0 == database.engine.pool.checkedout()

    assert [] == stored(engine)


@pytest.mark.parametrize("kind", ["sync_session", "async_session"])
async def test_200_failures_on_a_pool_of_5(
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., AsyncEngine],
    serve: Callable[[Any], str],
    kind: str,
) -> None:
    """200 requests that fail at once after a query have each its own status."""
    if kind == "sync_session":
        engine = make_engine(pool_size=5, max_overflow=0)
        get_session = session_dependency(engine)
    else:
        async_engine = make_async_engine(pool_size=5, max_overflow=0)
        engine = async_engine.sync_engine
        get_session = async_session_dependency(async_engine)
    app = FastAPI()

    async def async_endpoint(
        number: int, session: Annotated[Any, Depends(get_session)]
    ) -> None:
        await read(session)
        raise HTTPException(400 + number % 10)

    def sync_endpoint(
        number: int, session: Annotated[Any, Depends(get_session)]
    ) -> None:
        in_thread(read, session)
        raise HTTPException(400 + number % 10)

    app.get("/{number}")(sync_endpoint if kind == "sync_session" else async_endpoint)
    url = serve(app)
    with fail_after(30):
        statuses = await asyncio.gather(
            *(status_of(f"{url}/{number}") for number in range(200))
        )

    assert [400 + number % 10 for number in range(200)] == statuses
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]


async def status_of(url: str) -> int:
    """Ask for `url` on a connection of its own, which costs less than httpx does."""
    target = httpx.URL(url)
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(f"GET {target.path} HTTP/1.1\r\nHost: test\r\n".encode())
    writer.write(b"Connection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


async def test_client_that_leaves(
    database: Any, engine: Engine, serve: Callable[[Any], str]
) -> None:
    """A client that leaves in the middle of a stream leaves no connection out."""
    app = FastAPI()
    get_session = database.get_session(scope="request")
    ended = threading.Event()

    @app.get("/")
    async def stream(session: Annotated[Any, Depends(get_session)]) -> Any:
        async def body() -> AsyncIterator[str]:
            await write(session)
            while True:
                yield "more"
                await asyncio.sleep(0)

        return StreamingResponse(body())

    url = serve(app)

    async with httpx.AsyncClient() as http, http.stream("GET", url) as response:
        assert "more" == await anext(response.aiter_text())
        event.listen(database.engine, "checkin", lambda *_: ended.set())

    assert ended.wait(10)
    assert 0 == database.engine.pool.checkedout()


async def test_503(serve: Callable[[Any], str]) -> None:
    """A bind that is missing is a 503 where the app asks for it."""
    app = FastAPI()
    add_exception_handlers(app)

    @app.get("/")
    def endpoint(session: Annotated[Any, Depends(session_dependency(None))]) -> None:
        raise AssertionError("the endpoint is not to be reached")

    async with httpx.AsyncClient() as http:
        response = await http.get(serve(app))

    assert (503, "1") == (response.status_code, response.headers["Retry-After"])
