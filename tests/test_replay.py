"""Requests that are run again, before their client hears of anything."""

import asyncio
import sqlite3
from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import stamina
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from apps import client, write
from models import Note, stored
from retried import REQUESTS, Driver, Service, refusal
from safesession import InvalidArgument, OutcomeUnknown, session_scope
from safesession.fastapi import add_exception_handlers
from safesession.retry import RetryMiddleware, in_session

if TYPE_CHECKING:
    from fastapi_fixtures import Database

pytestmark = REQUESTS
pytest_plugins = ("fastapi_fixtures", "retry_fixtures")


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


async def test_answer_of_a_handler_is_sent_once(
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


@pytest.mark.parametrize("between", [False, True])
async def test_database_that_is_not_there_yet(
    database: "Database", service: Service, observer: Engine, between: bool
) -> None:
    """A handler answers 503 in vain, too: it is there at the next attempt."""
    if between:
        service.stream_answers()
    add_exception_handlers(service.app)
    errors = [ConnectionRefusedError(), TimeoutError()]

    @event.listens_for(database.engine, "do_connect")
    def fail(*args: Any) -> None:
        if errors:
            raise errors.pop()

    assert (await service.post()).status_code == 201
    assert len(service.calls) == 3
    assert stored(observer) == ["once"]


async def test_unknown_outcome_of_idempotent_requests(
    database: "Database", observer: Engine
) -> None:
    """Who says that all may be done twice has them run again."""
    service = Service(database, idempotent=True)
    service.errors = [OutcomeUnknown(None, None, Driver("08006"))]

    assert (await service.post()).status_code == 201
    assert stored(observer) == ["once"]


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
