"""Requests with sessions of several dependencies do not wait for each other forever."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from anyio import wait_all_tasks_blocked
from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from apps import client, get
from models import Note
from safesession.fastapi import add_exception_handlers, session_dependency
from waiting import Door, MakeEngine, answers, count

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_other_dependencies")]
pytest_plugins = ("fastapi_fixtures",)


def both(first: Any, second: Any) -> FastAPI:
    """Return an app whose requests have two sessions, in either order."""
    app = FastAPI()

    def use(session: Session) -> Session:
        count(session)
        return session

    def use_first(session: Annotated[Session, Depends(first)]) -> Session:
        return use(session)

    def use_second(session: Annotated[Session, Depends(second)]) -> Session:
        return use(session)

    @app.get("/0")
    def in_order(
        one: Annotated[Session, Depends(use_first)],
        other: Annotated[Session, Depends(use_second)],
    ) -> bool:
        return one is not other

    @app.get("/1")
    async def in_reverse(
        other: Annotated[Session, Depends(use_second)],
        one: Annotated[Session, Depends(use_first)],
    ) -> bool:
        return one is not other

    return app


BINDS: dict[str, Callable[[Engine, Engine], tuple[Any, Any]]] = {
    "one engine": lambda engine, other: (engine, engine),
    "options": lambda engine, other: (engine, engine.execution_options(tag="x")),
    "sessionmakers": lambda engine, other: (sessionmaker(engine), sessionmaker(engine)),
    "callables": lambda engine, other: (lambda: engine, lambda: engine),
    "two engines": lambda engine, other: (engine, other),
}


@pytest.mark.parametrize("orders", [1, 2])
@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("binds", BINDS.values(), ids=BINDS)
async def test_requests_with_two_sessions(
    binds: Callable[[Engine, Engine], tuple[Any, Any]],
    size: int,
    orders: int,
    make_engine: MakeEngine,
) -> None:
    """They do not wait for each other, each with one of the two."""
    engine, other = (
        make_engine(pool_size=size, max_overflow=0, pool_timeout=5) for _ in range(2)
    )
    first, second = map(session_dependency, binds(engine, other))

    paths = [f"/{number % orders}" for number in range(100)]
    assert {200: 100} == await answers(both(first, second), paths)


async def test_requests_with_two_sessions_of_given_limits(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(pool_size=5, max_overflow=0, pool_timeout=5)
    first = session_dependency(engine, max_concurrency=1)
    second = session_dependency(engine, max_concurrency=2)

    paths = [f"/{number % 2}" for number in range(100)]
    assert {200: 100} == await answers(both(first, second), paths)


async def test_sessionmaker_that_is_bound_later(make_engine: MakeEngine) -> None:
    """It is the engine that counts which it has when it is used."""
    engine, other = (
        make_engine(pool_size=2, max_overflow=0, pool_timeout=5) for _ in range(2)
    )
    makers = [sessionmaker(engine), sessionmaker(other)]
    first, second = map(session_dependency, makers)
    for maker in makers:
        maker.configure(bind=other)

    paths = [f"/{number % 2}" for number in range(100)]
    assert {200: 100} == await answers(both(first, second), paths)


async def test_slot_that_another_request_may_need(make_engine: MakeEngine) -> None:
    """A request waits although a slot is free, where it is the last one to go on by."""
    one, two, three = (
        session_dependency(make_engine(pool_size=size, max_overflow=0))
        for size in (2, 1, 2)
    )
    app = FastAPI()
    inside: list[str] = []
    release = asyncio.Event()

    @app.get("/2", dependencies=[Depends(two)])
    async def wait() -> None:
        await release.wait()

    @app.get("/12", dependencies=[Depends(one), Depends(two)])
    async def waits_for_it() -> None:
        inside.append("12")

    @app.get("/31", dependencies=[Depends(three), Depends(one)])
    async def last() -> None:
        inside.append("31")

    requests = []
    for path in ("/2", "/12", "/31"):
        requests.append(asyncio.create_task(get(app, path)))
        await wait_all_tasks_blocked()

    # The first may yet ask for a session of `one`, and the second waits for the first.
    assert [] == inside
    release.set()
    await asyncio.gather(*requests)
    assert {"12", "31"} == set(inside)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda engine: session_dependency(engine), id="engine"),
        pytest.param(lambda engine: session_dependency(lambda: engine), id="callable"),
    ],
)
async def test_many_dependencies(
    made: Callable[[Engine], Any], make_engine: MakeEngine
) -> None:
    """They leave all slots but one to requests that have no session yet."""
    engine = make_engine(pool_size=5, max_overflow=0)
    dependencies = [made(engine) for _ in range(20)]
    door = Door(dependencies[0])

    await door.ask(*range(6))

    assert [0, 1, 2, 3] == door.inside
    for number in range(6):
        await door.let_go(number)


async def test_dependencies_that_take_no_slots(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=2, max_overflow=0)
    with engine.connect() as connection:
        others = [
            session_dependency(connection),
            session_dependency(None, missing_ok=True),
            session_dependency(engine, max_concurrency=None),
            session_dependency(sessionmaker(binds={Note: engine})),
        ]
        door = Door(session_dependency(engine))

        await door.ask(0, 1)

    assert len(others) == 4
    assert [0, 1] == door.inside
    await door.let_go(0)
    await door.let_go(1)


async def test_backlog_of_another_engine(make_engine: MakeEngine) -> None:
    """Who comes later does not go first, on whichever engine."""
    busy, idle = (
        Door(session_dependency(make_engine(pool_size=size, max_overflow=0)))
        for size in (2, 1)
    )
    await busy.ask(0, 1)
    # It waits, as each of the two might ask for that session too.
    await idle.ask(0)
    await busy.ask(2, 3)
    assert [[0, 1], []] == [busy.inside, idle.inside]

    await busy.let_go(0)
    await busy.let_go(1)

    assert [0] == idle.inside
    await idle.let_go(0)
    assert [0, 1, 2, 3] == busy.inside
    await busy.let_go(2)
    await busy.let_go(3)


async def test_engine_that_changes_under_way(make_engine: MakeEngine) -> None:
    """Where none could go on any more, one is let in beyond the limit."""
    engine, other, third = (make_engine(pool_size=2, max_overflow=0) for _ in range(3))
    current = [other]
    first = session_dependency(engine)
    second = session_dependency(lambda: current[0])
    at_once = asyncio.Barrier(2)
    bystander = Door(session_dependency(third))
    app = FastAPI()

    async def meet(session: Annotated[Session, Depends(first)]) -> None:
        await at_once.wait()
        current[0] = engine

    @app.get("/0", dependencies=[Depends(meet), Depends(second)])
    async def endpoint() -> None:
        pass

    @app.get("/1", dependencies=[Depends(second)])
    async def before() -> None:
        pass

    await bystander.ask(0)
    assert {200: 1} == await answers(app, ["/1"])
    assert {200: 2} == await answers(app, ["/0"] * 2)
    await bystander.let_go(0)


async def test_more_sessions_than_the_pool_has_connections(
    make_engine: MakeEngine,
) -> None:
    """A request that needs two where there is one is told so by the pool."""
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0.1)
    dependencies = [session_dependency(engine) for _ in range(2)]

    with pytest.raises(PoolTimeoutError, match="limit of size 1 overflow 0 reached"):
        async with client(both(*dependencies), raising=True) as http:
            await http.get("/0")
    app = both(*dependencies)
    add_exception_handlers(app)
    assert {503: 2} == await answers(app, ["/0", "/1"])
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]


async def test_dependencies_of_one_engine_share_its_limit(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine(pool_size=2, max_overflow=0)
    doors = [Door(session_dependency(engine)) for _ in range(2)]

    for door in doors:
        await door.ask(0, 1)

    # The last slot is for one of them that might want a session of the other too.
    assert [[0], []] == [door.inside for door in doors]
    await doors[0].let_go(0)
    await doors[0].let_go(1)
    await doors[1].let_go(0)
    await doors[1].let_go(1)
