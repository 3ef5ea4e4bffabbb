"""What happens to a request while it waits to be run again, and once it is settled."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import stamina
from anyio import move_on_after
from anyio.lowlevel import checkpoint
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from starlette.middleware import Middleware

from apps import client, write
from eager import eager_tasks, needs_eager_tasks
from models import stored
from retried import REQUESTS, Service, refusal
from safesession.retry import RetryMiddleware

if TYPE_CHECKING:
    from fastapi_fixtures import Database

pytestmark = REQUESTS
pytest_plugins = ("fastapi_fixtures", "retry_fixtures")


@pytest.fixture
def backoff() -> None:
    """Have stamina wait, as it does but in tests."""
    stamina.set_testing(False)


class Listening:
    """What answers an error of the database, and listens for its client meanwhile."""

    def __init__(self, app: Any, ended: asyncio.Event) -> None:
        self._app = app
        self._ended = ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except DBAPIError:
            listening = asyncio.create_task(receive())
            try:
                await JSONResponse({}, 409)(scope, receive, send)
            except OSError:
                self._ended.set()
                await listening
                assert {"type": "http.disconnect"} == await receive()
            else:
                await listening


class Uploading:
    """An endpoint that fails at the first chunk of a body, whose rest is to come."""

    def __init__(self, database: "Database", rest: dict[str, Any]) -> None:
        self.arrives = asyncio.Event()
        self.bodies: list[bytes] = []
        self._messages = [
            {"type": "http.request", "body": b"first", "more_body": True},
            rest,
        ]
        self._app = app = FastAPI()
        app.add_middleware(Listening, ended=self.arrives)
        app.add_middleware(RetryMiddleware, max_body_size=10)
        get_session = database.get_session()

        @app.post("/")
        async def endpoint(
            request: Request, session: Annotated[Any, Depends(get_session)]
        ) -> None:
            chunks = request.stream()
            self.bodies.append(await anext(chunks))
            await write(session, "refused" if len(self.bodies) == 1 else "kept")
            if len(self.bodies) == 1:
                raise refusal()
            self.bodies[-1] += b"".join([chunk async for chunk in chunks])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def receive_next() -> Any:
            if len(self._messages) == 1:
                await self.arrives.wait()
            return self._messages.pop(0)

        await self._app(scope, receive_next, send)


REST = {"type": "http.request", "body": b" and the rest", "more_body": False}


@pytest.mark.usefixtures("backoff")
@pytest.mark.parametrize("rest", [REST, {"type": "http.disconnect"}])
async def test_body_that_is_lost_while_it_waits(
    database: "Database",
    observer: Engine,
    on_retry: Callable[[Any], None],
    rest: dict[str, Any],
) -> None:
    """What the next attempt would not have, or not be asked for, is not run again."""
    uploading = Uploading(database, rest)
    on_retry(lambda _: uploading.arrives.set())

    async with client(uploading) as http:
        response = await http.post("/", content=b"by Uploading")

    assert response.status_code == 409
    assert uploading.bodies == [b"first"]
    assert stored(observer) == []


async def test_body_that_arrives_when_it_is_settled(
    database: "Database", observer: Engine
) -> None:
    """What an attempt was waiting for when it was ended is there for the next one."""
    uploading = Uploading(database, REST)

    async with client(uploading) as http:
        response = await http.post("/", content=b"by Uploading")

    assert response.status_code == 200
    assert uploading.bodies == [b"first", b"first and the rest"]
    assert stored(observer) == ["kept"]


@pytest.mark.usefixtures("backoff")
async def test_timeout_while_it_waits(
    service: Service, observer: Engine, on_retry: Callable[[Any], None]
) -> None:
    """Who answers instead is heard: whether an attempt follows is not asked again."""

    class Impatient:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            with move_on_after(30) as timeout:
                on_retry(lambda _: timeout.cancel())
                await self._app(scope, receive, send)
            if timeout.cancelled_caught:
                await JSONResponse({}, 504)(scope, receive, send)

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> JSONResponse:
        return JSONResponse({}, 409)

    service.app.user_middleware.append(Middleware(Impatient))
    service.errors = [refusal(), refusal()]

    assert (await service.post()).status_code == 504
    assert service.calls == ["once"]


@pytest.mark.usefixtures("backoff")
async def test_answer_of_another_while_it_waits(
    service: Service, observer: Engine
) -> None:
    """There is one answer, and no further attempt."""

    class Hasty:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self._app(scope, receive, send)
            except DBAPIError:
                waits = asyncio.create_task(JSONResponse({}, 409)(scope, receive, send))
                await checkpoint()
                await JSONResponse({}, 410)(scope, receive, send)
                waits.cancel()
                await asyncio.wait([waits])

    service.app.user_middleware.append(Middleware(Hasty))
    service.errors = [refusal()]

    assert (await service.post()).status_code == 410
    assert service.calls == ["once"]
    assert stored(observer) == []


async def test_instrumentation_that_fails_before_an_answer(
    service: Service, on_retry: Callable[[Any], None]
) -> None:
    """What it has raised leaves the request, and is not asked again."""
    failure = LookupError()
    asked: list[int] = []

    def fail(details: Any) -> None:
        asked.append(1)
        raise failure

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> JSONResponse:
        return JSONResponse({}, 409)

    on_retry(fail)
    service.errors = [refusal()]
    with pytest.raises(LookupError) as raised:
        await service.post(raising=True)

    assert raised.value is failure
    assert (service.calls, asked) == (["once"], [1])


async def test_session_that_may_still_commit(
    database: "Database", observer: Engine
) -> None:
    """An answer that begins beside it is sent: what it commits is not done again."""
    app = FastAPI()
    app.add_middleware(RetryMiddleware)
    inner = database.get_session()
    outer = database.get_session(scope="request", commit_on=OSError)
    calls: list[int] = []

    async def swallow() -> Any:
        with suppress(DBAPIError):
            yield

    @app.get("/")
    async def endpoint(
        _: Annotated[None, Depends(swallow, scope="function")],
        session: Annotated[Any, Depends(inner)],
        still_open: Annotated[Any, Depends(outer)],
    ) -> None:
        calls.append(1)
        await write(still_open, f"of call {len(calls)}")
        refused = getattr(session, "sync_session", session)
        refused.begin()
        if len(calls) == 1:
            event.listen(refused, "before_commit", refuse)

    def refuse(session: Any) -> None:
        raise refusal()

    async with client(app) as http:
        await http.get("/")

    assert calls == [1]
    assert stored(observer) == ["of call 1"]


async def test_nothing_was_answered(service: Service, observer: Engine) -> None:
    """A handler that returns nothing has another attempt follow, too."""

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> None:
        return None

    service.errors = [refusal()]

    assert (await service.post()).status_code == 201
    assert service.calls == ["once"] * 2


@needs_eager_tasks
async def test_eager_tasks(service: Service) -> None:
    """An error that is being handled stays as it was where tasks begin at once."""
    seen: list[Any] = []

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> Response:
        try:
            raise ValueError from error
        except ValueError as translated:
            return Translated(translated, error)

    class Translated(Response):
        def __init__(self, *errors: BaseException) -> None:
            super().__init__(status_code=409)
            self._errors = errors

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            translated, error = self._errors
            try:
                raise translated
            except ValueError:
                await super().__call__(scope, receive, send)
            seen.append((translated.__context__ is error, error.__context__))

    service.errors = [refusal() for _ in range(10)]
    with eager_tasks():
        assert (await service.post()).status_code == 409

    assert seen == [(True, None)]
