"""Requests wait for a session on the event loop, and not for each other's thread."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from anyio import fail_after, move_on_after, wait_all_tasks_blocked
from fastapi import Depends, FastAPI, WebSocket
from pydantic import BaseModel
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from apps import client, get, talk
from models import Note
from safesession import InvalidArgument, _admission, _limits
from safesession.fastapi import add_exception_handlers, session_dependency

pytestmark = pytest.mark.anyio

MakeEngine = Callable[..., Engine]


@pytest.fixture(autouse=True)
def no_other_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget those of other tests: a request here might ask for their sessions too."""
    monkeypatch.setattr(_admission, "_limiters", [])


class Count(BaseModel):
    notes: int


def count(session: Session) -> Count:
    return Count(notes=session.scalar(select(func.count(Note.id))) or 0)


async def answers(app: FastAPI, paths: list[str]) -> Counter[int]:
    """Return how many requests, all made at once, had which status."""
    async with client(app) as http:
        with fail_after(30):
            responses = await asyncio.gather(*map(http.get, paths))
    return Counter(response.status_code for response in responses)


# What starves where each request has a session and waits for a thread


@pytest.mark.parametrize("authenticates", [False, True], ids=["", "authenticating"])
@pytest.mark.parametrize("kind", ["def", "async_def"])
@pytest.mark.parametrize("pool", [(5, 0), (5, 10), (40, 0)], ids=str)
async def test_200_requests_at_once(
    pool: tuple[int, int], kind: str, authenticates: bool, make_engine: MakeEngine
) -> None:
    """Each is answered, whatever it needs a thread for while it has its session."""
    engine = make_engine(pool_size=pool[0], max_overflow=pool[1], pool_timeout=5)
    SessionDep = Annotated[Session, Depends(session_dependency(engine))]
    app = FastAPI()

    def authenticate(session: SessionDep) -> None:
        count(session)

    dependencies = [Depends(authenticate)] if authenticates else []

    @app.get("/def", dependencies=dependencies)
    def in_thread(session: SessionDep) -> Count:
        return count(session)

    @app.get("/async_def", dependencies=dependencies)
    async def on_loop(session: SessionDep) -> Count:
        return count(session)

    assert {200: 200} == await answers(app, [f"/{kind}"] * 200)
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]


async def test_1000_requests_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=5, max_overflow=0, pool_timeout=5)
    get_session = session_dependency(engine)
    app = FastAPI()

    @app.get("/")
    def endpoint(session: Annotated[Session, Depends(get_session)]) -> Count:
        return count(session)

    assert {200: 1000} == await answers(app, ["/"] * 1000)


# Sessions of several dependencies in one request


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


async def test_request_that_waits_for_another(make_engine: MakeEngine) -> None:
    """Where no slot has moved for as long as the pool would wait, the pool decides."""
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0.2)
    get_session = session_dependency(engine)
    app = FastAPI()
    add_exception_handlers(app)

    @app.get("/inner")
    def inner(session: Annotated[Session, Depends(get_session)]) -> Count:
        return count(session)

    @app.get("/outer")
    async def outer(
        uses: bool, session: Annotated[Session, Depends(get_session)]
    ) -> int:
        if uses:
            count(session)
        return (await get(app, "/inner")).status_code

    with fail_after(5):
        assert 200 == (await get(app, "/outer?uses=0")).json()
        assert 503 == (await get(app, "/outer?uses=1")).json()
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]


async def test_patience_begins_anew_when_a_slot_moves(make_engine: MakeEngine) -> None:
    """However long a request waits, it is not let in while others have their turns."""
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0.3)
    get_session = session_dependency(engine)
    inside: list[int] = []
    app = FastAPI()

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        inside.append(1)
        assert 1 == len(inside)
        await asyncio.sleep(0.1)
        inside.pop()

    assert {200: 6} == await answers(app, ["/"] * 6)


async def test_patience_is_lost_when_the_turn_has_come(make_engine: MakeEngine) -> None:
    """A request that was let in a moment before takes one slot, and not two."""
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0)
    limiter = _limits.Limiter("session_dependency", engine, "pool")
    first, second = _admission.Holder(), _admission.Holder()
    with Session(engine) as session:
        await limiter.acquire(first, session)
        waiting = asyncio.create_task(limiter.acquire(second, session))
        # It begins; and its time is up, right after the next step.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        limiter.release(first)
        await waiting

    assert [-1 + limit.size for limit in second.slots.values()] == [
        limit.free for limit in second.slots.values()
    ]
    limiter.release(second)


async def test_engine_that_changes_under_way(make_engine: MakeEngine) -> None:
    """Where none could go on any more, one is let in beyond the limit."""
    engine, other = (make_engine(pool_size=2, max_overflow=0) for _ in range(2))
    current = [other]
    first = session_dependency(engine)
    second = session_dependency(lambda: current[0])
    at_once = asyncio.Barrier(2)
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

    assert {200: 1} == await answers(app, ["/1"])
    assert {200: 2} == await answers(app, ["/0"] * 2)


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


# Who waits, and for how long


class Door:
    """An app whose requests wait in their endpoints, each until it is released."""

    def __init__(self, get_session: Any) -> None:
        self.app = FastAPI()
        self.inside: list[int] = []
        self.release: dict[int, asyncio.Event] = {}

        @self.app.get("/{number}")
        async def wait(
            number: int, session: Annotated[Any, Depends(get_session)]
        ) -> None:
            self.inside.append(number)
            self.release[number] = asyncio.Event()
            await self.release[number].wait()

    async def ask(self, *numbers: int) -> list["asyncio.Task[Any]"]:
        """Begin requests, and return them when none can go further."""
        tasks = []
        for number in numbers:
            tasks.append(asyncio.create_task(get(self.app, f"/{number}")))
            await wait_all_tasks_blocked()
        return tasks

    async def let_go(self, number: int) -> None:
        self.release[number].set()
        await wait_all_tasks_blocked()


async def test_first_come_first_served(make_engine: MakeEngine) -> None:
    door = Door(session_dependency(make_engine(pool_size=1, max_overflow=1)))

    requests = await door.ask(0, 1, 2, 3, 4)

    assert [0, 1] == door.inside
    await door.let_go(1)
    assert [0, 1, 2] == door.inside
    await door.let_go(0)
    await door.let_go(2)
    assert [0, 1, 2, 3, 4] == door.inside
    await door.let_go(3)
    await door.let_go(4)
    assert [200] * 5 == [each.result().status_code for each in requests]


async def test_cancelled_while_it_waits(make_engine: MakeEngine) -> None:
    """It leaves the queue, and those behind it have their turn."""
    door = Door(session_dependency(make_engine(pool_size=1, max_overflow=0)))
    requests = await door.ask(0, 1, 2)

    requests[1].cancel()
    await wait_all_tasks_blocked()
    await door.let_go(0)

    assert requests[1].cancelled()
    assert [0, 2] == door.inside
    await door.let_go(2)


async def test_cancelled_about_when_it_is_admitted(make_engine: MakeEngine) -> None:
    """It passes its turn on, at whatever step of the loop the cancellation comes."""
    get_session = session_dependency(make_engine(pool_size=1, max_overflow=0))
    insides = []

    for steps in range(25):
        door = Door(get_session)
        requests = await door.ask(0, 1, 2)
        door.release[0].set()
        for _ in range(steps):
            await asyncio.sleep(0)
        requests[1].cancel()
        await wait_all_tasks_blocked()

        assert requests[1].cancelled()
        insides.append(door.inside.copy())
        await door.let_go(2)
        assert 200 == requests[2].result().status_code

    assert [0, 2] == insides[0]
    assert [0, 1, 2] == insides[-1]


async def test_anyio_scope_cancelled_while_it_waits(make_engine: MakeEngine) -> None:
    door = Door(session_dependency(make_engine(pool_size=1, max_overflow=0)))
    await door.ask(0)

    with move_on_after(0.01) as scope:
        await get(door.app, "/1")
    requests = await door.ask(2)
    await door.let_go(0)

    assert scope.cancelled_caught
    assert [0, 2] == door.inside
    await door.let_go(2)
    assert 200 == requests[0].result().status_code


async def test_number_given(make_engine: MakeEngine) -> None:
    """It takes the place of what the pool can give."""
    engine = make_engine(pool_size=5, max_overflow=0)
    door = Door(session_dependency(engine, max_concurrency=2))

    await door.ask(0, 1, 2)
    assert [0, 1] == door.inside
    for number in range(3):
        await door.let_go(number)
    assert [0, 1, 2] == door.inside


@pytest.mark.parametrize(
    "options, arguments",
    [
        pytest.param({"max_concurrency": None}, {}, id="switched off"),
        pytest.param({}, {"max_overflow": -1}, id="overflow without limit"),
        pytest.param({}, {"pool_size": 0}, id="size without limit"),
        pytest.param({}, {"poolclass": NullPool}, id="NullPool"),
        pytest.param({}, {"poolclass": StaticPool}, id="StaticPool"),
    ],
)
async def test_no_limit(
    options: dict[str, Any], arguments: dict[str, Any], make_engine: MakeEngine
) -> None:
    if "poolclass" not in arguments:
        arguments = {"pool_size": 1, "max_overflow": 0, **arguments}
    door = Door(session_dependency(make_engine(**arguments), **options))

    await door.ask(*range(20))

    assert [*range(20)] == door.inside
    for number in range(20):
        await door.let_go(number)


async def test_connection_is_not_limited(make_engine: MakeEngine) -> None:
    """Its sessions take nothing from the pool."""
    engine = make_engine(pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        door = Door(session_dependency(connection))
        await door.ask(0, 1)
        assert [0, 1] == door.inside
        await door.let_go(0)
        await door.let_go(1)


async def test_engine_that_is_disposed_of(make_engine: MakeEngine) -> None:
    """Its limit stays what it was."""
    engine = make_engine(pool_size=1, max_overflow=0)
    door = Door(session_dependency(engine))
    await door.ask(0)
    engine.dispose()

    await door.ask(1)

    assert [0] == door.inside
    await door.let_go(0)
    await door.let_go(1)


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


async def test_websocket_does_not_wait(make_engine: MakeEngine) -> None:
    """It may be open for days, and hold a connection for moments."""
    engine = make_engine(pool_size=1, max_overflow=0)
    get_session = session_dependency(engine)
    door = Door(get_session)
    await door.ask(0)

    @door.app.websocket("/talk")
    async def echo(
        websocket: WebSocket, session: Annotated[Session, Depends(get_session)]
    ) -> None:
        await websocket.accept()
        await websocket.close()

    with fail_after(5):
        sent = await talk(door.app, "/talk", [])
    assert ["websocket.accept", "websocket.close"] == [each["type"] for each in sent]
    await door.let_go(0)


def test_each_event_loop_has_its_own_limit(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    get_session = session_dependency(engine)
    together = threading.Barrier(2, timeout=5)
    app = FastAPI()

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        await asyncio.to_thread(together.wait)

    def ask() -> None:
        statuses.append(asyncio.run(get(app)).status_code)

    statuses: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [200, 200] == statuses


@pytest.mark.parametrize(
    "given, named",
    [
        (0, "0"),
        (-1, "-1"),
        (True, "an object of type bool"),
        (2.0, "an object of type float"),
        ("pools", "an object of type str"),
    ],
)
def test_argument_of_the_wrong_kind(given: Any, named: str, engine: Engine) -> None:
    with pytest.raises(InvalidArgument) as raised:
        session_dependency(engine, max_concurrency=given)
    assert str(raised.value) == (
        f"session_dependency() got {named} as max_concurrency. Pass how many sessions "
        "may be out at once, 1 or more; or None for no limit; or 'pool' for as many "
        "as the engine's pool can give."
    )
