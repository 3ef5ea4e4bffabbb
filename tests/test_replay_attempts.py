"""What each attempt of a request is given, and what it leaves to the next."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from apps import client, write
from models import stored
from retried import REQUESTS, Service, refusal
from safesession.retry import RetryMiddleware

if TYPE_CHECKING:
    from fastapi_fixtures import Database

pytestmark = REQUESTS
pytest_plugins = ("fastapi_fixtures", "retry_fixtures")


async def test_body_that_is_too_large_is_not_kept(
    database: "Database", observer: Engine
) -> None:
    """It reaches the endpoint as it is, and is run once."""
    service = Service(database, max_body_size=10)
    service.errors = [refusal(), refusal()]

    assert (await service.post("short")).status_code == 201
    service.errors = [refusal()]
    response = await service.post("longer than ten")

    assert response.status_code == 500
    assert service.calls == ["short"] * 3 + ["longer than ten"]


async def test_body_in_parts(service: Service, observer: Engine) -> None:
    """Each attempt is given all of them, in their order."""
    service.errors = [refusal(), refusal()]
    parts = (b'"on', b"c", b'e"')

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def receive_parts(scope: Any, receive: Any, send: Any) -> None:
        left = list(parts)

        async def next_part() -> Any:
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left)}

        await service.app(scope, next_part, send)

    async with client(receive_parts) as http:
        headers = {"content-type": "application/json"}
        response = await http.post("/notes", content=body(), headers=headers)

    assert response.status_code == 201
    assert service.calls == ["once"] * 3


async def test_body_of_just_that_size_is_kept(
    database: "Database", observer: Engine
) -> None:
    """It has room for so many bytes, quotes included."""
    service = Service(database, max_body_size=len('"once"'))
    service.errors = [refusal()]

    assert (await service.post()).status_code == 201


async def test_what_is_around_sees_the_route(service: Service) -> None:
    """What the app has put into the scope is there for an outer middleware."""
    seen: list[str] = []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await service.app(scope, receive, send)
        seen.append(scope["route"].path)

    service.errors = [refusal()]
    async with client(outer) as http:
        await http.post("/notes", json="once")

    assert seen == ["/notes"]


async def test_mounted_app(database: "Database", observer: Engine) -> None:
    """Each attempt finds its route from the path as the server gave it."""
    inner, app = FastAPI(), FastAPI()
    app.add_middleware(RetryMiddleware)
    app.mount("/inner", inner)
    get_session = database.get_session()
    roots: list[str] = []

    @inner.post("/notes")
    async def create(
        request: Request, session: Annotated[Any, Depends(get_session)]
    ) -> None:
        roots.append(request.scope["root_path"])
        await write(session)
        if len(roots) < 3:
            raise refusal()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        roots.append(scope["root_path"])

    async with client(outer) as http:
        response = await http.post("/inner/notes")

    assert response.status_code == 200
    assert roots == ["/inner"] * 4
    assert stored(observer) == ["kept"]


class Adding:
    """What adds a header to a request, in place."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["headers"].append((b"attempt", b""))
        await self._app(scope, receive, send)


@pytest.mark.parametrize("given", [None, {"given": "by the server"}])
async def test_state_of_an_attempt_ends_with_it(
    database: "Database", given: dict[str, str] | None
) -> None:
    """The next one begins with what was there; the last one's is there for others."""
    app = FastAPI()
    app.add_middleware(Adding)
    app.add_middleware(RetryMiddleware)
    get_session = database.get_session()
    found: list[dict[str, Any]] = []
    headers: list[int] = []
    around: list[Any] = []

    @app.get("/")
    async def endpoint(
        request: Request, session: Annotated[Any, Depends(get_session)]
    ) -> None:
        found.append(dict(request.scope.get("state", {})))
        headers.append(len(request.headers))
        request.state.attempt = len(found)
        await write(session, str(len(found)))
        if len(found) < 3:
            raise refusal()

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        state = {} if given is None else scope.setdefault("state", dict(given))

        async def send_and_look(message: Any) -> None:
            around.append(scope["state"]["attempt"])
            await send(message)

        await app(scope, receive, send_and_look)
        assert given is None or scope["state"] is state

    async with client(outer) as http:
        response = await http.get("/")

    assert response.status_code == 200
    assert found == [given or {}] * 3
    assert len(set(headers)) == 1
    assert around == [3, 3]


async def test_what_an_attempt_leaves_to_the_next(
    service: Service, observer: Engine
) -> None:
    """Context variables that it has set are kept."""
    variable: ContextVar[int] = ContextVar("attempt", default=0)
    seen: list[int] = []

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> JSONResponse:
        seen.append(variable.get())
        variable.set(len(seen))
        return JSONResponse({}, 409)

    service.errors = [refusal(), refusal()]

    assert (await service.post()).status_code == 201
    assert seen == [0, 1]
