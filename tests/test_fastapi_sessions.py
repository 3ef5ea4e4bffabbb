"""One session for each request and factory, and nothing about it in the schema."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response, Security
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from apps import PLACES, SPELLINGS, client, get, reporting, write
from models import stored
from safesession.fastapi import session_dependency

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


async def test_one_session_in_any_mix(database: Any, engine: Engine) -> None:
    """All of a request's dependencies have the same session, however they ask."""
    get_session = database.get_session()
    seen: list[Any] = []

    def below(session: Annotated[Any, Depends(get_session)]) -> Any:
        seen.append(session)
        return session

    async def uncached(
        session: Annotated[Any, Depends(get_session, use_cache=False)],
        below: Annotated[Any, Depends(below, use_cache=False)],
    ) -> None:
        seen.extend((session, below))

    async def secured(
        session: Annotated[Any, Security(get_session, scopes=["inner"])],
        below: Annotated[Any, Security(below, scopes=["deep"])],
    ) -> None:
        seen.extend((session, below))

    async def of_request(
        session: Annotated[Any, Depends(get_session, scope="request")],
    ) -> AsyncIterator[Any]:
        yield session

    router = APIRouter(
        dependencies=[Depends(uncached), Security(secured, scopes=["a"])]
    )

    @router.get("/", dependencies=[Depends(get_session, scope="request")])
    async def endpoint(
        a: Annotated[Any, Depends(get_session)],
        b: Annotated[Any, Depends(get_session, scope="function")],
        c: Annotated[Any, Depends(get_session, scope="request")],
        d: Annotated[Any, Security(get_session, scopes=["b", "c"])],
        e: Annotated[Any, Security(secured, scopes=["d"])],
        f: Annotated[Any, Depends(of_request)],
    ) -> None:
        seen.extend((a, b, c, d, f))
        await write(a)

    app = FastAPI(dependencies=[Depends(below)])
    app.include_router(router)
    events = database.report("checkout", "commit")

    response = await get(reporting(app, events))

    assert (200, 1) == (response.status_code, len({id(session) for session in seen}))
    assert ["checkout", "commit", "http.response.start"] == events[:3]
    assert ["kept"] == stored(engine)


async def test_one_session_that_fails_once(database: Any, engine: Engine) -> None:
    """The session that several ask for is rolled back once, and as a whole."""
    get_session = database.get_session()

    async def secured(
        session: Annotated[Any, Security(get_session, scopes=["inner"])],
    ) -> None:
        await write(session, "lost")

    app = FastAPI(dependencies=[Security(secured, scopes=["outer"])])

    @app.get("/")
    async def reject(
        session: Annotated[Any, Security(get_session, scopes=["own"])],
        uncached: Annotated[Any, Depends(get_session, use_cache=False)],
    ) -> None:
        await write(session, "lost too")
        raise HTTPException(400)

    events = database.report("checkout", "rollback", "commit", "checkin")
    response = await get(reporting(app, events))

    assert 400 == response.status_code
    assert ["checkout", "rollback", "checkin"] == events[:3]
    assert [] == stored(engine)


async def test_two_factories_two_sessions(database: Any, engine: Engine) -> None:
    """Two factories on one engine give two sessions, and two transactions."""
    get_first, get_second = database.get_session(), database.get_session()
    app = FastAPI()
    seen: list[Any] = []

    @app.get("/")
    async def endpoint(
        first: Annotated[Any, Depends(get_first)],
        second: Annotated[Any, Depends(get_second)],
    ) -> None:
        seen.extend((first, second))
        await write(first)

    assert 200 == (await get(app)).status_code
    assert seen[0] is not seen[1]
    assert ["kept"] == stored(engine)


async def test_each_request_has_its_own(database: Any) -> None:
    """The next request has the next session."""
    app = FastAPI()
    seen: list[Any] = []

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        seen.append(session)

    async with client(app) as http:
        await http.get("/")
        await http.get("/")

    assert seen[0] is not seen[1]


async def test_a_request_that_is_served_twice(database: Any, engine: Engine) -> None:
    """A middleware that tries a failed request again gets a fresh session for it."""
    app = FastAPI()
    attempts: list[Any] = []

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        attempts.append(session)
        await write(session)
        if len(attempts) == 1:
            raise LookupError

    class Retrying:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, *args: Any) -> None:
            try:
                await self.app(*args)
            except LookupError:
                await self.app(*args)

    app.add_middleware(Retrying)

    assert 200 == (await get(app)).status_code
    assert attempts[0] is not attempts[1]
    assert ["kept"] == stored(engine)


async def test_request_that_is_handed_on(database: Any, engine: Engine) -> None:
    """An endpoint that hands its request on to another app shares the session."""
    get_session = database.get_session(scope="request")
    SessionDep = Annotated[Any, Depends(get_session)]
    inner, app = FastAPI(), FastAPI()
    seen: list[Any] = []

    class HandedOn(Response):
        async def __call__(self, *args: Any) -> None:
            await inner(*args)

    @inner.get("/")
    async def second(session: SessionDep) -> None:
        seen.append(session)
        await write(session, "second")

    @app.get("/")
    async def first(session: SessionDep) -> Response:
        seen.append(session)
        await write(session, "first")
        return HandedOn()

    events = database.report("checkout", "commit")

    assert 200 == (await get(app)).status_code
    assert seen[0] is seen[1]
    assert ["checkout", "commit"] == events
    assert ["first", "second"] == stored(engine)


async def test_mounted_app(database: Any, engine: Engine) -> None:
    """An app mounted in another has its sessions like any other."""
    inner = PLACES[0](Depends(database.get_session()))
    app = FastAPI()
    app.mount("/inner", inner)

    async with client(app) as http:
        response = await http.post("/inner/notes")

    assert 201 == response.status_code
    assert ["kept"] == stored(engine)


def overridden(database: Any) -> tuple[FastAPI, Callable[..., Any]]:
    app = FastAPI()
    get_session = database.get_session()

    @app.get("/")
    async def endpoint(session: Annotated[Any, Depends(get_session)]) -> str:
        return str(session)

    return app, get_session


async def test_override_by_a_function(database: Any) -> None:
    """app.dependency_overrides puts a plain function in the place of get_session."""
    app, get_session = overridden(database)
    app.dependency_overrides[get_session] = lambda: "a fake"
    events = database.report("checkout")

    assert "a fake" == (await get(app)).json()
    assert [] == events


async def test_override_by_a_generator(database: Any) -> None:
    """app.dependency_overrides puts a generator in the place of get_session."""
    app, get_session = overridden(database)
    ended = []

    async def fake_session() -> AsyncIterator[str]:
        yield "a fake"
        ended.append(True)

    app.dependency_overrides[get_session] = fake_session

    assert "a fake" == (await get(app)).json()
    assert [True] == ended


async def test_override_by_another_factory(database: Any, engine: Engine) -> None:
    """app.dependency_overrides puts another get_session in the place of one."""
    app, get_session = overridden(database)
    app.dependency_overrides[get_session] = session_dependency(
        engine, class_=type("Fake", (Session,), {"__str__": lambda self: "another"})
    )

    assert "another" == (await get(app)).json()


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("place", PLACES)
async def test_openapi_document(
    database: Any, place: Callable[..., Any], spell: Any
) -> None:
    """The schema is that of an app whose get_session is written by hand."""

    async def by_hand() -> AsyncIterator[Session]:
        yield Session()

    # Neither takes FastAPI's word that a function-scoped session ends in time.
    hand_written = place(spell(by_hand)).openapi()

    assert hand_written == place(spell(database.get_session())).openapi()
