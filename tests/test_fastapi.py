"""What the client sees of a transaction, and what is left of it in the database."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, PendingRollbackError

from apps import (
    PLACES,
    SPELLINGS,
    client,
    get,
    in_thread,
    read,
    reporting,
    write,
)
from models import Note, Reply, stored

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("place", PLACES)
async def test_ends_before_the_response_starts(
    database: Any, engine: Engine, place: Callable[..., Any], spell: Any
) -> None:
    """The connection is back before the first byte, however Depends is spelt."""
    events = database.report("commit", "checkin")
    app = place(spell(database.get_session()))

    async with client(reporting(app, events)) as http:
        response = await http.post("/notes")

    assert 201 == response.status_code
    assert ["commit", "checkin", "http.response.start"] == events[:3]
    assert ["kept"] == stored(engine)


async def test_request_scope_ends_after_the_response(
    database: Any, engine: Engine
) -> None:
    """With scope="request" a stream may use the session, and is then committed."""
    app = FastAPI()
    get_session = database.get_session(scope="request")

    @app.get("/")
    async def stream(session: Annotated[Any, Depends(get_session)]) -> Any:
        async def body() -> AsyncIterator[str]:
            await write(session)
            yield str(await read(session))

        return StreamingResponse(body())

    events = database.report("commit", "checkin")
    response = await get(reporting(app, events))

    assert (200, "['kept']") == (response.status_code, response.text)
    body = ["http.response.body"] * 2
    assert ["http.response.start", *body, "commit", "checkin"] == events
    assert ["kept"] == stored(engine)


async def test_request_scope_rolls_a_failed_stream_back(
    database: Any, engine: Engine
) -> None:
    """With scope="request" an error in the stream leaves nothing behind."""
    app = FastAPI()
    get_session = database.get_session(scope="request")

    @app.get("/")
    async def stream(session: Annotated[Any, Depends(get_session)]) -> Any:
        async def body() -> AsyncIterator[str]:
            await write(session)
            yield "so far"
            raise LookupError

        return StreamingResponse(body())

    with pytest.raises(LookupError):
        async with client(app, raising=True) as http:
            await http.get("/")

    assert [] == stored(engine)


def failing_commit(database: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/", status_code=201)
    async def create(session: Annotated[Any, Depends(database.get_session())]) -> None:
        session.add_all([Note(text="lost"), Reply(note_id=404)])

    return app


async def test_failed_commit_reaches_the_handler(database: Any, engine: Engine) -> None:
    """A commit that fails is what the app's exception handler makes of it."""
    app = failing_commit(database)

    @app.exception_handler(IntegrityError)
    async def conflict(request: Any, error: IntegrityError) -> JSONResponse:
        return JSONResponse({"detail": "conflict"}, status_code=409)

    response = await get(app)

    assert (409, {"detail": "conflict"}) == (response.status_code, response.json())
    assert [] == stored(engine)


async def test_failed_commit_without_a_handler(database: Any, engine: Engine) -> None:
    """A commit that fails is a 500 where the app has no handler for it."""
    response = await get(failing_commit(database))

    assert 500 == response.status_code
    assert [] == stored(engine)


async def test_failed_commit_reaches_the_server(database: Any) -> None:
    """What the server logs is the error of the commit itself."""
    with pytest.raises(IntegrityError, match=r"(?i)FOREIGN KEY"):
        async with client(failing_commit(database), raising=True) as http:
            await http.get("/")


async def test_swallowed_flush_error(database: Any, engine: Engine) -> None:
    """A caught flush error is no success, as nothing of the work was written."""
    app = FastAPI()

    @app.get("/", status_code=201)
    async def create(session: Annotated[Any, Depends(database.get_session())]) -> None:
        await write(session)
        with pytest.raises(IntegrityError):
            await write(session)

    with pytest.raises(PendingRollbackError):
        async with client(app, raising=True) as http:
            await http.get("/")

    assert [] == stored(engine)


FAILURES = {
    "HTTPException": (HTTPException(400, "no"), 400),
    "unexpected": (LookupError("no"), 500),
}


@pytest.mark.parametrize("error, status", FAILURES.values(), ids=FAILURES)
async def test_error_of_an_async_endpoint(
    database: Any, engine: Engine, error: Exception, status: int
) -> None:
    """What an async endpoint raises has its own status and leaves no row."""
    app = FastAPI()

    @app.get("/")
    async def reject(session: Annotated[Any, Depends(database.get_session())]) -> None:
        await write(session, "lost")
        raise error

    assert status == (await get(app)).status_code
    assert [] == stored(engine)


@pytest.mark.parametrize("error, status", FAILURES.values(), ids=FAILURES)
async def test_error_of_a_sync_endpoint(
    database: Any, engine: Engine, error: Exception, status: int
) -> None:
    """What a sync endpoint raises has its own status and leaves no row."""
    app = FastAPI()

    @app.get("/")
    def reject(session: Annotated[Any, Depends(database.get_session())]) -> None:
        in_thread(write, session, "lost")
        raise error

    assert status == (await get(app)).status_code
    assert [] == stored(engine)


@pytest.mark.parametrize("error, status", FAILURES.values(), ids=FAILURES)
async def test_error_of_a_dependency(
    database: Any, engine: Engine, error: Exception, status: int
) -> None:
    """What a dependency beside the session raises has its own status, too."""
    app = FastAPI()
    SessionDep = Annotated[Any, Depends(database.get_session())]

    async def user(session: SessionDep) -> None:
        await write(session, "lost")
        raise error

    @app.get("/")
    async def never(session: SessionDep, user: Annotated[Any, Depends(user)]) -> None:
        raise AssertionError("the endpoint is not to be reached")

    assert status == (await get(app)).status_code
    assert [] == stored(engine)


async def test_validation_error(database: Any, engine: Engine) -> None:
    """A request that does not validate is a 422 and leaves no row."""
    app = FastAPI()
    SessionDep = Annotated[Any, Depends(database.get_session())]

    async def user(session: SessionDep) -> None:
        await write(session, "lost")

    @app.get("/", dependencies=[Depends(user)])
    async def never(session: SessionDep, number: int) -> None:
        raise AssertionError("the endpoint is not to be reached")

    assert 422 == (await get(app, params={"number": "none"})).status_code
    assert [] == stored(engine)


async def test_response_that_does_not_validate(database: Any, engine: Engine) -> None:
    """An answer that is not its response_model is a 500 and leaves no row."""
    app = FastAPI()

    @app.get("/", response_model=int)
    async def wrong(session: Annotated[Any, Depends(database.get_session())]) -> str:
        await write(session, "lost")
        return "no number"

    assert 500 == (await get(app)).status_code
    assert [] == stored(engine)


async def test_returned_error_is_no_exception(database: Any, engine: Engine) -> None:
    """An error response that is returned, not raised, commits as any other."""
    app = FastAPI()

    @app.get("/")
    async def answer(session: Annotated[Any, Depends(database.get_session())]) -> Any:
        await write(session)
        return JSONResponse({"detail": "noted"}, status_code=400)

    assert 400 == (await get(app)).status_code
    assert ["kept"] == stored(engine)


async def test_commit_on_keeps_the_work(database: Any, engine: Engine) -> None:
    """With commit_on the row is kept beside the 400, which still is the answer."""
    app = FastAPI()
    get_session = database.get_session(commit_on=HTTPException)

    @app.get("/")
    async def reject(session: Annotated[Any, Depends(get_session)]) -> None:
        session.add(Note(text="kept"))
        raise HTTPException(400, "no")

    events = database.report("commit")
    response = await get(reporting(app, events))

    assert (400, {"detail": "no"}) == (response.status_code, response.json())
    assert ["commit", "http.response.start"] == events[:2]
    assert ["kept"] == stored(engine)


async def test_commit_on_is_for_these_types_alone(
    database: Any, engine: Engine
) -> None:
    """An exception that commit_on does not name rolls back."""
    app = FastAPI()
    get_session = database.get_session(commit_on=(HTTPException, KeyError))

    @app.get("/")
    async def fail(session: Annotated[Any, Depends(get_session)]) -> None:
        session.add(Note(text="lost"))
        raise LookupError

    assert 500 == (await get(app)).status_code
    assert [] == stored(engine)


async def test_commit_on_whose_commit_fails(database: Any, engine: Engine) -> None:
    """The 400 is the answer even where the commit beside it fails."""
    app = FastAPI()
    get_session = database.get_session(commit_on=HTTPException)

    @app.get("/")
    async def reject(session: Annotated[Any, Depends(get_session)]) -> None:
        session.add_all([Note(text="lost"), Reply(note_id=404)])
        raise HTTPException(400, "no")

    response = await get(app)

    assert (400, {"detail": "no"}) == (response.status_code, response.json())
    assert [] == stored(engine)
