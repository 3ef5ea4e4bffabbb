"""A client that leaves before it is answered, below the usual kinds of middleware."""

import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Any

import anyio
import httpx
import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.middleware.base import BaseHTTPMiddleware

from apps import ASGIApp, Message, Send, in_thread, write
from models import stored
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing._interrupts import OUTLASTS_TWO
from safesession.testing._suspensions import Interrupt, Task, Unit
from test_cancellation import LEFT_BY_STATEMENT
from units import (
    EXHAUSTIVE,
    ROWS,
    Client,
    Place,
    app_of,
    no_collection,
    work,
)

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


def passing_on(app: ASGIApp) -> ASGIApp:
    """Put a BaseHTTPMiddleware around `app`, which runs it in a task of its own."""

    async def dispatch(request: Any, call_next: Callable[..., Any]) -> Any:
        return await call_next(request)

    return BaseHTTPMiddleware(app, dispatch)  # type: ignore[arg-type, return-value]


def giving_up(app: ASGIApp) -> ASGIApp:
    """Cancel `app` when its client leaves, as many services do by hand."""

    async def middleware(scope: Message, receive: Any, send: Send) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await app(scope, receive, send)
            group.cancel_scope.cancel()

    return middleware


MIDDLEWARE: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "passing on": passing_on,
    "giving up": giving_up,
    "giving up, below": lambda app: passing_on(giving_up(app)),
    "giving up, above": lambda app: giving_up(passing_on(app)),
}


SOME = MIDDLEWARE if EXHAUSTIVE else dict([*MIDDLEWARE.items()][:2])


class Disconnect(Interrupt):
    """The client leaves."""

    name = "client leaves"

    def __init__(self, client: Client) -> None:
        self._client = client

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        self._client.gone.set()

    def arrived(self, task: Task) -> bool:
        return not task.cancelled() and self._client.gone.is_set()


@pytest.fixture
def place(
    engine: Engine, async_engine: AsyncEngine, tried: Counter[str]
) -> Iterator[Place]:
    place = Place(engine, async_engine, tried)
    with no_collection():
        yield place
    place.close()


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("kind", ["async session", "sync session", "thread"])
@pytest.mark.parametrize("around", SOME.values(), ids=SOME)
@pytest.mark.parametrize("told", [True, False] if EXHAUSTIVE else [True])
async def test_client_that_leaves(
    place: Place, around: Callable[[ASGIApp], ASGIApp], kind: str, told: bool
) -> None:
    """Wherever the request is, nothing leaks, and a 2xx is of what is committed."""

    async def run(unit: Unit) -> None:
        await client.ask()

    unit = Unit(run)
    client = Client(around(app_of(place, kind, unit.block_ends)), told)
    excused = LEFT_BY_STATEMENT if kind == "async session" else set()
    first = 1
    if kind == "async session" and not OUTLASTS_TWO:
        first = await place.first_of_exit(unit)
    async for seen in place.at_each(unit, partial(Disconnect, client), first=first):
        rows, left = await place.left_by(seen)
        assert left <= (excused if seen.in_block else set())
        assert rows in ([], ROWS)
        assert rows == ROWS or client.answered == []
    assert client.answered == [200]
    assert client.error is None
    assert seen.at > 1


STREAMED = {
    "bare": lambda app: app,
    # Which has two that wait for the client to leave, below a middleware that has one.
    **{name: SOME[name] for name in SOME if name != "giving up, below"},
}


def streaming(place: Place, kind: str, ends: Callable[[], None]) -> FastAPI:
    """Return an app whose session is in use while it streams."""
    app = FastAPI()
    if kind == "async session":
        get_session = async_session_dependency(place.async_engine, scope="request")
    else:
        get_session = session_dependency(place.engine, scope="request")

    @app.get("/")
    async def stream(session: Annotated[Any, Depends(get_session)]) -> Any:
        async def body() -> AsyncIterator[str]:
            yield "begun"
            if kind == "async session":
                await session.run_sync(work)
            else:
                await to_thread.run_sync(work, session)
            yield "done"
            ends()

        return StreamingResponse(body())

    return app


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("kind", ["async session", "sync session"])
@pytest.mark.parametrize("around", STREAMED.values(), ids=STREAMED)
@pytest.mark.parametrize("told", [True, False] if EXHAUSTIVE else [True])
async def test_client_that_leaves_a_stream(
    place: Place, around: Callable[[ASGIApp], ASGIApp], kind: str, told: bool
) -> None:
    """Wherever the stream is, all of its work is committed or none."""

    async def run(unit: Unit) -> None:
        await client.ask()

    unit = Unit(run)
    client = Client(around(streaming(place, kind, unit.block_ends)), told)
    excused = LEFT_BY_STATEMENT if kind == "async session" else set()
    first = 1
    if kind == "async session" and not OUTLASTS_TWO:
        first = await place.first_of_exit(unit)
    async for seen in place.at_each(unit, partial(Disconnect, client), first=first):
        rows, left = await place.left_by(seen)
        assert left <= (excused if seen.in_block else set())
        assert rows in ([[], ROWS] if seen.reached else [ROWS])
    assert client.error is None
    assert seen.at > 1


class Held:
    """An endpoint that has written a row, and goes no further before it is told to."""

    def __init__(self, bind: Any, factory: Callable[..., Any]) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.ended = threading.Event()
        self.app = FastAPI()
        get_session = factory(bind)

        @self.app.get("/async")
        async def endpoint(session: Annotated[Any, Depends(get_session)]) -> None:
            try:
                await write(session)
                self.reached.set()
                await to_thread.run_sync(self.go_on.wait, 10, abandon_on_cancel=True)
            finally:
                self.ended.set()

        @self.app.get("/thread")
        def in_endpoint(session: Annotated[Any, Depends(get_session)]) -> None:
            try:
                in_thread(write, session)
                self.reached.set()
                self.go_on.wait(10)
                in_thread(write, session, "more")
            finally:
                self.ended.set()


@pytest.mark.parametrize("path", ["/async", "/thread"])
@pytest.mark.parametrize("around", ["passing on", "giving up", "giving up, above"])
async def test_socket_that_is_closed(
    database: Any, engine: Engine, serve: Any, around: str, path: str
) -> None:
    """The same by uvicorn, of a client that closes its socket meanwhile."""
    held = Held(database.bind, database.factory)
    gone, served = threading.Event(), threading.Event()

    async def watched(scope: Message, receive: Any, send: Send) -> None:
        async def watching() -> Message:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                gone.set()
            return message

        try:
            await MIDDLEWARE[around](held.app)(scope, watching, send)
        finally:
            served.set()

    url = httpx.URL(serve(watched))
    with socket.create_connection((url.host, url.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert await to_thread.run_sync(held.reached.wait, 10)
    if around != "passing on":
        assert await to_thread.run_sync(gone.wait, 10)
    if path == "/async" and around != "passing on":
        assert await to_thread.run_sync(served.wait, 10)
    held.go_on.set()
    assert await to_thread.run_sync(served.wait, 10)
    assert await to_thread.run_sync(held.ended.wait, 10)

    assert database.engine.pool.checkedout() == 0
    done = ["kept"] if path == "/async" else ["kept", "more"]
    expected = [done] if around == "passing on" else [[]]
    if path == "/thread":
        # A cancel scope does not reach the thread, so the endpoint may end normally.
        expected.append(done)
    assert stored(engine) in expected
