"""A unit of work that is cancelled at any of its suspensions, by enumeration."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from models import Note
from safesession import async_session_scope
from safesession.testing._interrupts import INTERRUPTS, OUTLASTS_TWO, CancelAll
from safesession.testing._suspensions import Interrupt, Unit
from units import (
    EXHAUSTIVE,
    ROWS,
    Client,
    Place,
    app_of,
    in_block,
    no_collection,
    work,
)

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]

# What SQLAlchemy and aiosqlite leave behind of a session that is cancelled while it
# waits for a statement, without safesession too, as is seen below:
LEFT_BY_STATEMENT = {
    # A cursor that has executed and not fetched lives on in a cycle of an exception and
    # its traceback; it keeps SQLite locked, though its connection is closed.
    "lock",
    # Of a connection that is told twice to stop, the second time when its thread has.
    "_terminate_graceful_close",
}


# In each run, as they differ most; the others behave as one of them.
ORDINARY = ("cancel", "cancel twice", "cancel when done", "anyio cancel scope")


@pytest.fixture(params=INTERRUPTS if EXHAUSTIVE else ORDINARY)
def interrupt(request: pytest.FixtureRequest) -> type[Interrupt]:
    return INTERRUPTS[request.param]


@pytest.fixture
def place(
    engine: Engine, async_engine: AsyncEngine, tried: Counter[str]
) -> Iterator[Place]:
    place = Place(engine, async_engine, tried)
    with no_collection():
        yield place
    place.close()


@asynccontextmanager
async def without_safesession(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as session, session.begin():
        yield session


async def first_sound(place: Place, unit: Unit, interrupt: type[Interrupt]) -> int:
    """Return the first suspension at which SQLAlchemy outlasts an interrupt."""
    if interrupt is CancelAll and not OUTLASTS_TWO:
        pytest.skip("SQLAlchemy loses a connection whose reset is cancelled")
    again = interrupt.name in ("cancel twice", "anyio cancel scope")
    return 1 if OUTLASTS_TWO or not again else await place.first_of_exit(unit)


async def left_without_safesession(
    place: Place, interrupt: type[Interrupt]
) -> set[str]:
    """Return what is left behind where the block's statements are cancelled."""
    left: set[str] = set()
    runs = place.at_each(in_block(place, without_safesession), interrupt)
    async with aclosing(runs):
        async for seen in runs:
            if not seen.in_block:
                break
            left |= (await place.left_by(seen))[1]
    return left


@pytest.mark.parametrize("interrupt", INTERRUPTS.values(), ids=INTERRUPTS)
async def test_async_scope(place: Place, interrupt: type[Interrupt]) -> None:
    """All is committed or none, and nothing is left that a plain session clears."""
    unit = in_block(place, async_session_scope)
    first = await first_sound(place, unit, interrupt)
    excused: set[str] = set()
    if first == 1:
        excused = await left_without_safesession(place, interrupt)
    assert excused <= LEFT_BY_STATEMENT
    async for seen in place.at_each(unit, interrupt, first=first):
        rows, left = await place.left_by(seen)
        assert left <= (excused if seen.in_block else set())
        assert rows in ([[], ROWS] if seen.reached else [ROWS])
    assert seen.of_block is not None
    assert seen.at > seen.of_block + 1


@pytest.mark.parametrize("kind", ["async session", "sync session", "thread"])
async def test_request(place: Place, interrupt: type[Interrupt], kind: str) -> None:
    """What is answered 2xx is committed, and no connection is out."""

    async def run(unit: Unit) -> None:
        await client.ask()

    unit = Unit(run)
    client = Client(app_of(place, kind, unit.block_ends))
    excused = LEFT_BY_STATEMENT if kind == "async session" else set()
    first = 1
    if kind == "async session":
        first = await first_sound(place, unit, interrupt)
    async for seen in place.at_each(unit, interrupt, first=first):
        rows, left = await place.left_by(seen)
        assert left <= (excused if seen.in_block else set())
        assert rows in ([], ROWS)
        assert client.answered == [200] or seen.reached
        assert rows == ROWS or client.answered == []
    assert seen.at > 1


@pytest.mark.skipif(not OUTLASTS_TWO, reason="SQLAlchemy loses the connection itself")
async def test_savepoint(place: Place, interrupt: type[Interrupt]) -> None:
    """The outer session goes on, and holds all of the inner work or none of it."""

    async def run(unit: Unit) -> None:
        async with async_session_scope(outer) as session:
            await session.run_sync(work)
            unit.block_ends()

    at, reached = 1, True
    while reached:
        await place.prepare()
        async with AsyncSession(place.async_engine) as outer:
            outer.add(Note(text="before"))
            await outer.flush()
            seen = await Unit(run).interrupted(at, interrupt())
            try:
                outer.add(Note(text="then"))
                await outer.commit()
            except PendingRollbackError:
                # Its connection was closed, and with it went all of the transaction.
                assert seen.in_block or interrupt is CancelAll
                await outer.rollback()
                await place.free_locks()
                expected = [["then"]]
                outer.add(Note(text="then"))
                await outer.commit()
            else:
                expected = [["before", "then"], ["before", *ROWS, "then"]]
        rows, left = await place.left_by(seen)
        assert left <= (LEFT_BY_STATEMENT if seen.in_block else set())
        assert rows in expected[not reached :]
        at, reached = at + 1, seen.reached
