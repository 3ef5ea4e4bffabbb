"""Requests wait for a session on the event loop, and not for each other's thread."""

import asyncio
from typing import Annotated

import pytest
from anyio import fail_after, move_on_after, wait_all_tasks_blocked
from fastapi import Depends, FastAPI
from sqlalchemy.orm import Session

from apps import get
from safesession import _admission, _limits
from safesession.fastapi import add_exception_handlers, session_dependency
from waiting import Count, Door, MakeEngine, answers, count

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_other_dependencies")]
pytest_plugins = ("fastapi_fixtures",)


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


async def test_slot_of_who_has_lost_patience(make_engine: MakeEngine) -> None:
    """It is one more than there are, until it is given back."""
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=0.01)
    limiter = _limits.Limiter("session_dependency", engine, "pool")
    holders = _admission.Holder(), _admission.Holder()
    with Session(engine) as session:
        for holder in holders:
            await limiter.acquire(holder, session)
    (limit,) = holders[0].slots.values()

    assert -1 == limit.free
    for holder in holders:
        limiter.release(holder)
    assert 1 == limit.free


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
