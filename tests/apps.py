"""Apps, clients and small work for the tests of the FastAPI side."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from typing import Annotated, Any

import httpx
from anyio import fail_after, from_thread, to_thread
from fastapi import APIRouter, Depends, FastAPI, Response, Security
from sqlalchemy import select

from models import Note

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]
Respond = Callable[[], Response]


def client(app: ASGIApp, *, raising: bool = False) -> httpx.AsyncClient:
    """Return a client in this process; `raising` lets through what no handler took."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=raising)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def get(app: ASGIApp, path: str = "/", **options: Any) -> httpx.Response:
    async with client(app) as http:
        return await http.get(path, **options)


def reporting(app: ASGIApp, events: list[str]) -> ASGIApp:
    """Wrap `app` so that `events` tells when it sends which message."""

    async def reporting_app(scope: Message, receive: Any, send: Send) -> None:
        async def reporting_send(message: Message) -> None:
            events.append(message["type"])
            await send(message)

        await app(scope, receive, reporting_send)

    return reporting_app


async def talk(app: ASGIApp, path: str, texts: Iterable[str]) -> list[Message]:
    """Be a WebSocket client that sends `texts` and leaves; return what it got."""
    incoming = iter(
        [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": text} for text in texts),
            {"type": "websocket.disconnect", "code": 1001},
        ]
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return next(incoming)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return sent


async def while_no_thread_is_free(app: FastAPI, path: str) -> int:
    """Return the status that `path` has while another request holds the only thread."""
    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    other = FastAPI()

    @other.get("/")
    def wait() -> None:
        loop.call_soon_threadsafe(started.set)
        release.wait(10)

    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    holder = asyncio.create_task(get(other))
    try:
        with fail_after(5):
            await started.wait()
            assert 0 == limiter.available_tokens
            return (await get(app, path)).status_code
    finally:
        release.set()
        await holder


# Work, for sessions of either kind. A plain `def` endpoint with an async session is
# odd, but has to come out right like any other.


async def write(session: Any, text: str = "kept") -> None:
    """Write a row, as far as the database sees it before the commit."""
    session.add(Note(text=text))
    await _done(session.flush())


async def read(session: Any) -> list[str]:
    return list(await _done(session.scalars(select(Note.text))))


async def _done(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def in_thread(work: Callable[..., Any], session: Any, *args: Any) -> Any:
    """Do `work` in the worker thread of a plain `def` endpoint."""
    if inspect.iscoroutinefunction(type(session).flush):
        return from_thread.run(work, session, *args)
    coroutine = work(session, *args)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a sync session does not suspend")


def writing(get_session: Callable[..., Any]) -> tuple[FastAPI, list[Any]]:
    """Return an app that writes a row, and a list of the sessions it has had."""
    app, seen = FastAPI(), []

    @app.get("/")
    async def endpoint(session: Annotated[Any, Depends(get_session)]) -> None:
        seen.append(session)
        if session is not None:
            await write(session)

    return app, seen


# The ways to say Depends(get_session), and the places to say it in.

SPELLINGS: dict[str, Callable[..., Any]] = {
    "Depends": Depends,
    "scope=function": partial(Depends, scope="function"),
    "scope=request": partial(Depends, scope="request"),
    "use_cache=False": partial(Depends, use_cache=False),
    "Security": partial(Security, scopes=["write"]),
}


def created() -> Response:
    return Response(status_code=201)


def as_default(depends: Any, respond: Respond = created) -> FastAPI:
    app = FastAPI()

    @app.post("/notes")
    async def create(session: Any = depends) -> Response:
        session.add(Note(text="kept"))
        return respond()

    return app


def as_annotation(depends: Any, respond: Respond = created) -> FastAPI:
    app = FastAPI()

    @app.post("/notes")
    def create(session: Annotated[Any, depends]) -> Response:
        session.add(Note(text="kept"))
        return respond()

    return app


def below_another(depends: Any, respond: Respond = created) -> FastAPI:
    app = FastAPI()

    def repository(session: Annotated[Any, depends]) -> Any:
        return session

    @app.post("/notes")
    def create(session: Annotated[Any, Depends(repository)]) -> Response:
        session.add(Note(text="kept"))
        return respond()

    return app


def on_decorator(depends: Any, respond: Respond = created) -> FastAPI:
    app = FastAPI()

    @app.post("/notes", dependencies=[Depends(_writing(depends))])
    def create() -> Response:
        return respond()

    return app


def on_router(depends: Any, respond: Respond = created) -> FastAPI:
    router = APIRouter(dependencies=[Depends(_writing(depends))])

    @router.post("/notes")
    def create() -> Response:
        return respond()

    app = FastAPI()
    app.include_router(router)
    return app


def on_app(depends: Any, respond: Respond = created) -> FastAPI:
    app = FastAPI(dependencies=[Depends(_writing(depends))])

    @app.post("/notes")
    def create() -> Response:
        return respond()

    return app


def _writing(depends: Any) -> Callable[..., Any]:
    async def writing(session: Annotated[Any, depends]) -> None:
        session.add(Note(text="kept"))

    return writing


PLACES = (
    as_default,
    as_annotation,
    below_another,
    on_decorator,
    on_router,
    on_app,
)
