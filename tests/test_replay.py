"""Requests that are run again, before their client hears of anything."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
import stamina
from fastapi import (
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    WebSocket,
)
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException

from apps import client, talk, write
from models import Note, stored
from retried import Driver, refusal
from safesession import InvalidArgument, OutcomeUnknown, session_scope
from safesession.fastapi import add_exception_handlers
from safesession.retry import RetryMiddleware, in_session

if TYPE_CHECKING:
    from fastapi_fixtures import Database

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.on("sqlite", "postgresql", "mariadb"),
    pytest.mark.usefixtures("no_backoff"),
]
pytest_plugins = ("fastapi_fixtures", "retry_fixtures")


class Service:
    """An app whose database refuses its requests with these errors, one by one."""

    def __init__(self, database: "Database", **options: Any) -> None:
        self.errors: list[BaseException] = []
        self.calls: list[Any] = []
        self.mails: list[str] = []
        self.app = app = FastAPI()
        app.add_middleware(RetryMiddleware, **options)
        self.get = database.get_session()
        SessionDep = Annotated[Any, Depends(self.get)]

        @app.post("/notes", status_code=201)
        async def create(
            session: SessionDep, tasks: BackgroundTasks, text: Annotated[str, Body()]
        ) -> int:
            self.calls.append(text)
            await write(session, text)
            tasks.add_task(self.mails.append, text)
            self.fail()
            return len(self.calls)

    def fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def post(self, text: str = "once", *, raising: bool = False) -> Any:
        async with client(self.app, raising=raising) as http:
            return await http.post("/notes", json=text)


@pytest.fixture
def service(database: "Database") -> Service:
    return Service(database)


async def test_request_that_is_refused_is_run_again(
    service: Service, observer: Engine
) -> None:
    """Its client has the answer of the last attempt, which alone is committed."""
    service.errors = [refusal(), refusal("40P01")]

    response = await service.post()

    assert (response.status_code, response.json()) == (201, 3)
    assert service.calls == ["once"] * 3
    assert service.mails == ["once"]
    assert stored(observer) == ["once"]


async def test_last_error_is_the_apps_to_tell(
    service: Service, observer: Engine
) -> None:
    """Where no attempt is left, it is raised, with notes of those before."""
    service.errors = errors = [refusal() for _ in range(10)]
    last = errors[-1]

    with pytest.raises(OperationalError) as raised:
        await service.post(raising=True)

    assert raised.value is last
    assert len(last.__notes__) == 9
    assert last.__notes__[0].startswith("safesession: attempt 1 of POST /notes failed:")
    assert service.mails == []
    assert stored(observer) == []


async def test_answer_of_a_handler_is_held_back(
    service: Service, observer: Engine
) -> None:
    """A handler of the app is asked each time; its last answer is sent, once."""
    answers: list[int] = []

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> JSONResponse:
        answers.append(1)
        return JSONResponse({"answers": len(answers)}, 409)

    service.errors = [refusal()]
    assert (await service.post()).status_code == 201
    service.errors = [refusal() for _ in range(10)]
    response = await service.post("again")

    assert (response.status_code, response.json()) == (409, {"answers": 11})
    assert stored(observer) == ["once"]


async def test_lost_connection_is_503_after_the_last_attempt(
    service: Service, observer: Engine
) -> None:
    """Beside the handlers for a database that is not there."""
    add_exception_handlers(service.app)
    lost = DBAPIError("SELECT", {}, Driver("08006"), connection_invalidated=True)
    service.errors = [lost] * 10

    response = await service.post()

    assert response.status_code == 503
    assert len(service.calls) == 10


async def test_database_that_is_not_there_yet(
    database: "Database", service: Service, observer: Engine
) -> None:
    """A handler's 503 is held back, too: it is there at the next attempt."""
    add_exception_handlers(service.app)
    errors = [ConnectionRefusedError(), TimeoutError()]

    @event.listens_for(database.engine, "do_connect")
    def fail(*args: Any) -> None:
        if errors:
            raise errors.pop()

    assert (await service.post()).status_code == 201
    assert len(service.calls) == 3
    assert stored(observer) == ["once"]


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


async def test_unknown_outcome_of_idempotent_requests(
    database: "Database", observer: Engine
) -> None:
    """Who says that all may be done twice has them run again."""
    service = Service(database, idempotent=True)
    service.errors = [OutcomeUnknown(None, None, Driver("08006"))]

    assert (await service.post()).status_code == 201
    assert stored(observer) == ["once"]


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


async def test_defaults_and_limits(database: "Database") -> None:
    """They are as documented; what is passed is kept to."""
    parameters = signature(RetryMiddleware).parameters
    assert parameters["attempts"].default == 10
    assert parameters["timeout"].default == 10
    assert parameters["max_body_size"].default == 65536
    stamina.set_testing(False)
    for options in ({"attempts": 2}, {"attempts": 50, "timeout": 0.3}):
        service = Service(database, **options)
        service.errors = [refusal() for _ in range(100)]

        assert (await service.post()).status_code == 500
        assert 2 <= len(service.calls) < 50
        assert options.get("timeout") or len(service.calls) == 2


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


@pytest.mark.on("postgresql")
async def test_hot_row(
    database: "Database",
    observer: Engine,
    make_engine: Callable[..., Engine],
) -> None:
    """Every request is told 200 and applied once, whatever the database refuses."""
    with session_scope(make_engine()) as session:
        session.add(Note(text="0"))
    stamina.set_testing(False)
    app = FastAPI()
    app.add_middleware(RetryMiddleware, attempts=None, timeout=30)
    bind = database.bind.execution_options(isolation_level="SERIALIZABLE")
    get_session = database.factory(bind)

    @app.post("/")
    async def increment(session: Annotated[Any, Depends(get_session)]) -> None:
        note = session.get(Note, 1)
        if asyncio.iscoroutine(note):
            note = await note
        await asyncio.sleep(0)
        note.text = str(int(note.text) + 1)

    async with client(app) as http:
        responses = await asyncio.gather(*(http.post("/") for _ in range(40)))

    assert {each.status_code for each in responses} == {200}
    assert stored(observer) == ["40"]


@pytest.mark.on("sqlite")
async def test_commit_on_an_exception_that_is_refused(
    database: "Database",
    make_engine: Callable[..., Engine],
    observer: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The audit row beside a 400 is written by another attempt."""
    app = FastAPI()
    app.add_middleware(RetryMiddleware)
    get_session = database.get_session(commit_on=HTTPException)
    calls: list[int] = []
    dialect, busy = database.engine.dialect, sqlite3.OperationalError("busy")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    commit = dialect.do_commit

    def refuse(connection: Any) -> None:
        if len(calls) < 3:
            raise busy
        commit(connection)

    @app.get("/")
    async def audit(session: Annotated[Any, Depends(get_session)]) -> None:
        await write(session)
        calls.append(1)
        raise HTTPException(400)

    monkeypatch.setattr(dialect, "do_commit", refuse)
    async with client(app) as http:
        response = await http.get("/")

    assert (response.status_code, len(calls)) == (400, 3)
    assert stored(observer) == ["kept"]


async def test_path_is_quoted(
    service: Service, observer: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """What a client has put into it makes no line of the log."""
    service.errors = [refusal(), LookupError()]

    @service.app.get("/{path}")
    async def endpoint(
        path: str, session: Annotated[Any, Depends(service.get)]
    ) -> None:
        service.fail()

    async with client(service.app, raising=True) as http:
        with pytest.raises(LookupError) as raised:
            await http.get("/a%0AERROR%20forged")

    (note,) = raised.value.__notes__
    assert note.startswith("safesession: attempt 1 of GET /a%0AERROR%20forged failed:")
    (record,) = [each for each in caplog.records if each.name == "safesession"]
    assert record.getMessage() == note


@pytest.mark.parametrize("size", ["64", True, 0.5])
def test_size_that_is_none(size: Any) -> None:
    """It is refused, and what to pass is told."""
    with pytest.raises(InvalidArgument) as raised:
        RetryMiddleware(FastAPI(), max_body_size=size)

    assert str(raised.value) == (
        f"RetryMiddleware() got an object of type {type(size).__name__} as "
        "max_body_size. Pass how many bytes of a request's body are to be kept."
    )


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


async def test_what_an_attempt_leaves_to_the_next(
    service: Service, observer: Engine
) -> None:
    """The background task of a handler's answer is run, and a context variable kept."""
    variable: ContextVar[int] = ContextVar("attempt", default=0)
    seen: list[int] = []

    @service.app.exception_handler(DBAPIError)
    async def answer(request: Request, error: DBAPIError) -> JSONResponse:
        seen.append(variable.get())
        variable.set(len(seen))
        task = BackgroundTask(service.mails.append, "of a handler")
        return JSONResponse({}, 409, background=task)

    service.errors = [refusal(), refusal()]

    assert (await service.post()).status_code == 201
    assert seen == [0, 1]
    assert service.mails == ["of a handler", "of a handler", "once"]


async def test_decorated_endpoint(engine: Engine, observer: Engine) -> None:
    """FastAPI asks its client for what the callers of the function pass."""
    errors = [refusal()]
    app = FastAPI()

    @app.post("/{prefix}")
    @in_session(engine)
    def add(session: Session, prefix: str, text: str) -> str:
        session.add(Note(text=prefix + text))
        if errors:
            raise errors.pop()
        return text

    async with client(app) as http:
        response = await http.post("/a?text=b")

    assert (response.status_code, response.json()) == (200, "b")
    assert stored(observer) == ["ab"]
