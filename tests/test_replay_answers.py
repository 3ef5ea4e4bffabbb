"""What a handler answers in an attempt that is followed by another, or is the last."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import stamina
from fastapi import Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from starlette.background import BackgroundTask
from starlette.middleware import Middleware

from models import stored
from retried import REQUESTS, Service, refusal

if TYPE_CHECKING:
    from fastapi_fixtures import Database

pytestmark = REQUESTS
pytest_plugins = ("fastapi_fixtures", "retry_fixtures")


@pytest.fixture
def service(database: "Database") -> Service:
    """Return a service whose handler answers, and has a background task."""
    service = Service(database)

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> JSONResponse:
        number = len(service.calls)
        task = BackgroundTask(service.mails.append, f"of answer {number}")
        return JSONResponse({"answer": number}, 409, background=task)

    return service


@pytest.fixture
def inactive() -> Iterator[None]:
    stamina.set_active(False)
    yield
    stamina.set_active(True)


@pytest.mark.parametrize("between", [False, True])
async def test_answer_that_is_superseded(
    service: Service, observer: Engine, between: bool
) -> None:
    """Its background task is not run, nor where a middleware streams the answer."""
    if between:
        service.stream_answers()
    service.errors = [refusal(), refusal()]

    assert (await service.post()).status_code == 201
    assert service.mails == ["once"]
    assert stored(observer) == ["once"]


async def test_answer_of_the_last_attempt(service: Service, observer: Engine) -> None:
    """It is sent as it is, and its background task is run."""
    service.errors = [refusal() for _ in range(10)]

    response = await service.post()

    assert (response.status_code, response.json()) == (409, {"answer": 10})
    assert service.mails == ["of answer 10"]
    assert stored(observer) == []


async def test_what_instrumentation_is_told(
    service: Service, on_retry: Callable[[Any], None]
) -> None:
    """The middleware's name, and the error of the database itself."""
    told: list[tuple[str, Exception]] = []
    on_retry(lambda each: told.append((each.name, each.caused_by)))
    service.errors = [error] = [refusal()]

    await service.post()

    assert told == [("safesession._replay.RetryMiddleware", error)]


async def test_instrumentation_that_fails(
    service: Service, on_retry: Callable[[Any], None]
) -> None:
    """What it raises leaves the request, as it leaves a function that is run again."""
    failure = LookupError()

    def fail(details: Any) -> None:
        raise failure

    service.app.exception_handlers.clear()
    service.errors = [refusal()]
    on_retry(fail)
    with pytest.raises(LookupError) as raised:
        await service.post(raising=True)

    assert raised.value is failure
    assert service.calls == ["once"]


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses attributes, also those that Python sets."""


async def test_answer_to_an_error_that_refuses_attributes(service: Service) -> None:
    """It is sent: nothing is set on an error that is not run again."""

    @service.app.exception_handler(AttributeError)
    async def answer(request: Request, error: AttributeError) -> JSONResponse:
        return JSONResponse({}, 418)

    service.errors = [Frozen()]

    assert (await service.post()).status_code == 418
    assert service.calls == ["once"]


@pytest.mark.usefixtures("inactive")
async def test_answer_where_nothing_is_run_again(service: Service) -> None:
    """Where stamina is switched off, the first is the last."""
    service.errors = [refusal()]

    response = await service.post()

    assert (response.status_code, response.json()) == (409, {"answer": 1})
    assert service.mails == ["of answer 1"]


async def test_what_is_between_hears_that_nobody_listens(service: Service) -> None:
    """As of a client that has gone; and the error that it handles stays as it was."""
    heard: list[BaseException] = []
    received: list[Any] = []
    handled: list[tuple[Any, ...]] = []
    error = refusal()
    error.__cause__ = cause = LookupError()

    class Translating:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            try:
                await self._app(scope, receive, send)
            except DBAPIError as caught:
                traceback = caught.__traceback__
                try:
                    raise ValueError from caught
                except ValueError as translated:
                    try:
                        await JSONResponse({}, 409)(scope, receive, send)
                    except OSError as answer:
                        heard.append(answer)
                        received.append(await receive())
                    handled.append((translated.__context__, traceback))

    service.app.user_middleware.append(Middleware(Translating))
    service.app.exception_handlers.clear()
    service.errors = [error]

    assert (await service.post()).status_code == 201
    assert [str(each) for each in heard] == [
        "Nobody hears this answer: the request is run again."
    ]
    assert received == [{"type": "http.disconnect"}]
    ((context, traceback),) = handled
    assert context is error
    assert error.__traceback__ is traceback
    assert (error.__cause__, error.__context__) == (cause, None)


async def test_app_that_goes_on_answering(service: Service, observer: Engine) -> None:
    """Of what it sends all the same nothing is heard either."""
    refused: list[bool] = []

    class Insisting:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def insist(message: Any) -> None:
                for _ in range(2):
                    try:
                        await send(message)
                    except OSError:
                        refused.append(True)
                    else:
                        return

            await self._app(scope, receive, insist)

    service.app.user_middleware.append(Middleware(Insisting))
    service.errors = [refusal()]

    response = await service.post()

    assert (response.status_code, response.json()) == (201, 2)
    # Twice each of the answer's two messages.
    assert refused == [True] * 4
    # Who hears nothing of it goes on.
    assert service.mails == ["of answer 1", "once"]
