"""`verify` of an app: whose session is taken, and what else of the app is in place."""

from collections.abc import AsyncIterator, Callable
from contextlib import (
    asynccontextmanager,
)
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from safesession.fastapi import session_dependency
from safesession.testing import verify
from verified import broken, dependency, leaking, notes_app, unconfigured


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_timeout=1)


@leaking
def test_app_of_routers(engine: Engine) -> None:
    """Included routers and mounted apps are looked through, and classes resolved."""
    get_session = session_dependency(engine)

    class Repository:
        def __init__(self, session: Session = Depends(get_session)) -> None:
            pass

    router = APIRouter(prefix="/api")

    @router.get("/users")
    def users(repository: Annotated[Repository, Depends()]) -> None: ...

    app = FastAPI()
    app.mount("/below", notes_app(dependency(engine)))
    app.include_router(router)
    others = {1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 15}

    assert broken(app, route="/api/users", ignore=others) == set()
    assert broken(app, route="/below/faulty", ignore=others) == {10, 12}


@leaking
def test_app_is_held_by_the_session_of_a_route(engine: Engine) -> None:
    """The session is found below other dependencies, and taken as it is declared."""
    app = notes_app(dependency(engine))

    of_faulty = verify(app, route="/faulty")
    of_first = verify(notes_app(session_dependency(engine)))

    assert 10 in of_faulty.broken
    of_first.raise_for_broken()
    whence = "Its session is that of the route {}, from the function get_session()."
    assert [whence.format("/faulty")] == of_faulty.notes
    assert [whence.format("/notes")] == of_first.notes
    assert whence.format("/notes") in str(of_first)


def test_path_of_several_endpoints_is_looked_through(engine: Engine) -> None:
    """Where one path is of several methods, the one that has a session is found."""
    app = FastAPI()
    get_session = session_dependency(engine)

    @app.post("/notes")
    def add(session: Session = Depends(get_session)) -> None: ...

    @app.get("/notes")
    def home() -> None: ...

    verify(app, route="/notes", ignore={9, 14}).raise_for_broken()


def test_app_lives_while_it_is_held(engine: Engine) -> None:
    """The app's lifespan, state, overrides, middleware and handlers are in place."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        app.state.engine = engine
        seen.append("started")
        yield {"told": "by the lifespan"}
        seen.append("stopped")

    async def middleware(request: Request, call_next: Any) -> Any:
        assert request.state.told == "by the lifespan"
        seen.append("called")
        return await call_next(request)

    app = notes_app(unconfigured)
    app.router.lifespan_context = lifespan
    app.middleware("http")(middleware)
    app.dependency_overrides[unconfigured] = session_dependency(
        lambda: app.state.engine
    )

    verify(app, ignore={9}).raise_for_broken()

    assert seen[0] == "started"
    assert "called" in seen
    assert seen[-1] == "stopped"


def test_stream_is_served_to_its_end(engine: Engine) -> None:
    """A client that has sent all stays, and the app waits for its leaving in vain."""

    async def stream(request: Request, call_next: Any) -> StreamingResponse:
        answer = await call_next(request)
        return StreamingResponse(answer.body_iterator, answer.status_code)

    app = notes_app(session_dependency(engine))
    app.middleware("http")(stream)

    verify(app, ignore={9}).raise_for_broken()


async def conflict(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("There is one already.", 409)


def test_error_that_the_app_answers_is_heard(engine: Engine) -> None:
    """An exception handler of the app answers a failed commit, and nothing leaves."""
    app = notes_app(session_dependency(engine))
    for error in (SQLAlchemyError, ValueError):
        app.add_exception_handler(error, conflict)

    verify(app, ignore={9}).raise_for_broken()


@leaking
def test_error_in_place_of_another_is_found_if_it_is_answered(factories: Any) -> None:
    """A rollback that fails hides the block's exception, answered or not."""
    app = notes_app(factories.by_hand)
    app.add_exception_handler(SQLAlchemyError, conflict)

    report = verify(app, route="/notes", ignore={9})

    assert {1, 5} & report.broken.keys() == {5}
    assert report.broken[5].found == (
        "the block raised an exception and the rollback failed, and no exception "
        "reached the caller"
    )


NOTED: ContextVar[str] = ContextVar("NOTED", default="nothing")


class Noting:
    """A middleware that leaves behind what it has noted."""

    def __init__(self, app: Any, seen: set[str]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._seen.add(NOTED.get())
        NOTED.set("a session")
        await self._app(scope, receive, send)


def test_each_request_has_a_context_of_its_own(engine: Engine) -> None:
    """A context variable that one sets is not set for the next, as on a server."""
    seen: set[str] = set()
    app = notes_app(session_dependency(engine))
    app.add_middleware(Noting, seen=seen)

    verify(app, ignore={9})

    assert seen == {"nothing"}
    assert NOTED.get() == "nothing"


def test_lifespan_that_fails_is_raised() -> None:
    """An app that cannot start says why."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no settings")
        yield

    app = notes_app(unconfigured)
    app.router.lifespan_context = lifespan

    with pytest.raises(LookupError, match="no settings"):
        verify(app)
