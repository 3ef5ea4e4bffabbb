"""Requests of an app, served in process with nothing in between."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException, params
from starlette.types import ASGIApp, Message, Send

from ._harness import Body, InTask, raise_if_any

AtStart = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Answer:
    """What a client got, and the exception that the server got."""

    status: int | None = None
    content: bytes = b""
    left: BaseException | None = None


class InRequest(InTask):
    """An endpoint that has its session by a dependency.

    Args:
        session: What the endpoint's parameter for the session is declared with.
        like: The app whose middleware, exception handlers and dependency overrides
            are in place.
        note: Where the session is from, for the reader of the report.
    """

    def __init__(
        self, session: params.Depends, like: FastAPI | None = None, note: str = ""
    ) -> None:
        super().__init__()
        self.note = note
        self.depends: Any = session
        self._like = like
        self.keeps_links = like is None or not like.user_middleware
        self._state: Any = None
        self.last = Answer()
        self._life: asyncio.Task[None] | None = None
        if like is not None:
            try:
                self.wait_for(self._start(like))
            except BaseException:
                self._loop.close()
                raise

    async def _start(self, like: FastAPI) -> None:
        # In a task of its own, as a task group has to end in the task it began in.
        started = asyncio.Event()
        self._ending = asyncio.Event()
        self._life = asyncio.create_task(self._live(like, started))
        starting = asyncio.create_task(started.wait())
        await asyncio.wait((starting, self._life), return_when="FIRST_COMPLETED")
        if starting.cancel():
            await self._life

    async def _live(self, like: FastAPI, started: asyncio.Event) -> None:
        async with like.router.lifespan_context(like) as self._state:
            started.set()
            await self._ending.wait()

    def close(self) -> None:
        if self._life is not None:
            self.wait_for(self._stop(self._life))
        super().close()

    async def _stop(self, life: asyncio.Task[None]) -> None:
        self._ending.set()
        await life

    async def left_by(self, body: Body) -> BaseException | None:
        async def endpoint(session: Any = self.depends) -> None:
            raise_if_any(await self.work_on(session, body))

        self.last = await self.answer(endpoint)
        status = self.last.status
        self.answered = self.last.left is None and status is not None and status >= 400
        return self.last.left

    def carries(self, error: BaseException) -> bool:
        # A coroutine cannot raise StopIteration; and contextlib, which FastAPI runs
        # dependencies with, cannot set the traceback of a frozen dataclass.
        if isinstance(error, StopIteration) or not _accepts_attributes(error):
            return False
        # An app answers it.
        if isinstance(error, HTTPException):
            return False
        # Starlette's middleware turns a cancellation into "No response returned", and
        # may unpack a group.
        changed = not isinstance(error, Exception) or isinstance(error, ExceptionGroup)
        return self.keeps_links or not changed

    async def answer(
        self,
        endpoint: Callable[..., Any],
        *,
        at_start: AtStart | None = None,
        websocket: bool = False,
    ) -> Answer:
        """Have the endpoint called, and return the answer."""
        app = self._app()
        if websocket:
            app.add_api_websocket_route("/", endpoint)
            return await connect(app, self._state)
        app.add_api_route("/", endpoint, response_model=None)
        return await get(app, at_start, self._state)

    def _app(self) -> FastAPI:
        like = self._like
        if like is None:
            return FastAPI()
        app = FastAPI(
            dependencies=like.router.dependencies,
            middleware=like.user_middleware,
            exception_handlers=dict[Any, Any](like.exception_handlers),
        )
        app.dependency_overrides = like.dependency_overrides
        app.state = like.state
        return app


async def get(
    app: ASGIApp, at_start: AtStart | None = None, state: Any = None
) -> Answer:
    """Have `app` serve a GET in this very task."""
    answer = Answer()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            if at_start is not None:
                await at_start()
            answer.status = message["status"]
        else:
            answer.content += message.get("body", b"")

    answer.left = await _left_by(request(app, send, state))
    return answer


async def request(app: ASGIApp, send: Send, state: Any = None) -> None:
    """Have `app` serve a GET, and send by `send`."""
    messages: list[Message] = [{"type": "http.request"}]

    async def receive() -> Message:
        # The client stays until it has its answer.
        return messages.pop() if messages else await asyncio.Future()

    await app(_scope("http", state, method="GET"), receive, send)


async def connect(app: ASGIApp, state: Any = None) -> Answer:
    """Have `app` serve a WebSocket; the status of an accepted one is 101."""
    answer = Answer()

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        if message["type"] == "websocket.accept":
            answer.status = 101

    scope = _scope("websocket", state, subprotocols=[])
    answer.left = await _left_by(app(scope, receive, send))
    return answer


async def _left_by(serving: Awaitable[None]) -> BaseException | None:
    try:
        await serving
    except BaseException as error:
        return error
    return None


def _scope(kind: str, state: Any, **others: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "type": kind,
        "path": "/",
        "headers": [],
        "query_string": b"",
        **others,
    }
    if state is not None:
        scope["state"] = dict(state)
    return scope


def _accepts_attributes(error: BaseException) -> bool:
    try:
        error.__traceback__ = error.__traceback__
    except Exception:
        return False
    return True
