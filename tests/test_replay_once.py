"""Requests that are run once: what they did may have been kept, or been heard of."""

from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException as StarletteHTTPException

from apps import client, talk, write
from models import Note, stored
from retried import REQUESTS, Driver, Service, refusal
from safesession import OutcomeUnknown
from safesession.retry import RetryMiddleware

if TYPE_CHECKING:
    from fastapi_fixtures import Database

pytestmark = REQUESTS
pytest_plugins = ("fastapi_fixtures", "retry_fixtures")


@pytest.mark.parametrize(
    "error, status",
    [
        (HTTPException(400), 400),
        (StarletteHTTPException(404), 404),
        (OutcomeUnknown(None, None, Driver("08006")), 500),
        (LookupError(), 500),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_other_error_is_answered_at_once(
    service: Service, error: BaseException, status: int
) -> None:
    """What the endpoint refuses itself, and what may have been done, is run once."""
    service.errors = [error]

    response = await service.post()

    assert response.status_code == status
    assert len(service.calls) == 1


async def test_request_that_has_committed_is_not_run_again(
    database: "Database", observer: Engine
) -> None:
    """What another session of the request has committed would be done twice."""
    app = FastAPI()
    app.add_middleware(RetryMiddleware)
    calls: list[int] = []
    first, second = database.get_session(), database.get_session()

    # It is left last, and what is in it has been committed then.
    async def refused(session: Annotated[Any, Depends(first)]) -> Any:
        yield session
        raise refusal()

    @app.get("/")
    async def endpoint(
        outer: Annotated[Any, Depends(refused, scope="function")],
        inner: Annotated[Any, Depends(second)],
    ) -> None:
        calls.append(1)
        await write(inner)

    async with client(app) as http:
        response = await http.get("/")

    assert response.status_code == 500
    assert calls == [1]
    assert stored(observer) == ["kept"]


async def test_response_that_has_begun_is_not_begun_again(
    database: "Database", observer: Engine
) -> None:
    """A session of scope="request" ends when the client has heard of it."""
    app = FastAPI()
    app.add_middleware(RetryMiddleware)
    get_session = database.get_session(scope="request")
    calls: list[int] = []

    @app.get("/")
    async def endpoint(session: Annotated[Any, Depends(get_session)]) -> Any:
        calls.append(1)

        async def parts() -> Any:
            yield "begun"
            raise refusal()

        return StreamingResponse(parts())

    async with client(app, raising=True) as http:
        with pytest.raises((OperationalError, httpx.HTTPError)):
            await http.get("/")

    assert calls == [1]


async def test_error_that_no_session_has_seen(database: "Database") -> None:
    """Scopes of the endpoint's own are its own business: one may have committed."""
    app = FastAPI()
    app.add_middleware(RetryMiddleware)
    calls: list[int] = []

    @app.get("/")
    async def endpoint() -> None:
        calls.append(1)
        raise refusal()

    async with client(app) as http:
        assert (await http.get("/")).status_code == 500

    assert calls == [1]


async def test_websocket_passes(database: "Database") -> None:
    """It is nothing that could be run again."""
    app = FastAPI()
    app.add_middleware(RetryMiddleware)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())

    sent = await talk(app, "/", ["hello"])

    assert [each["text"] for each in sent if "text" in each] == ["hello"]


async def test_connection_of_somebody_else(
    sync_database: "Database", observer: Engine
) -> None:
    """Its transaction ends with the attempt, and cannot be run again."""
    calls: list[int] = []
    app = FastAPI()
    app.add_middleware(RetryMiddleware)
    with sync_database.engine.connect() as connection:
        get_session = sync_database.factory(connection)
        connection.execute(select(Note))

        @app.get("/")
        async def endpoint(session: Annotated[Any, Depends(get_session)]) -> None:
            calls.append(1)
            await write(session)
            raise refusal()

        async with client(app) as http:
            response = await http.get("/")

    assert (response.status_code, calls) == (500, [1])
    assert stored(observer) == []
