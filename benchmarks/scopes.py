"""The scope alone, with no web around it: timed in a process of its own."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from safesession import async_session_scope, session_scope

from .by_hand import async_get_session_on, get_session_on
from .databases import ROOT, Database, Item, Order
from .interleaving import interleave
from .results import Case, Series
from .server import answer, hear, introduce_oneself, process

BASELINE = "hand-written"
SAFESESSION = "safesession"
BEGIN = "sessionmaker.begin()"
CLOSE = "hand-written, close()"
VARIANTS = (BASELINE, CLOSE, BEGIN, SAFESESSION)
WORK = ("empty", "SELECT", "INSERT")

Scope = Callable[[], AbstractContextManager[Session]]
AsyncScope = Callable[[], AbstractAsyncContextManager[AsyncSession]]


def sync_scopes(engine: Engine) -> dict[str, Scope]:
    """Return the ways to enter a scope."""
    make_session = sessionmaker(engine)

    @contextmanager
    def closing_itself() -> Iterator[Session]:
        session = make_session()
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise
        finally:
            session.close()

    return {
        BASELINE: contextmanager(get_session_on(engine)),
        CLOSE: closing_itself,
        BEGIN: make_session.begin,
        SAFESESSION: lambda: session_scope(engine),
    }


def async_scopes(engine: AsyncEngine) -> dict[str, AsyncScope]:
    """Return the ways to enter an async scope."""
    make_session = async_sessionmaker(engine, expire_on_commit=False)

    # Its close() is not protected from a cancellation, as that of a block is.
    @asynccontextmanager
    async def closing_itself() -> AsyncIterator[AsyncSession]:
        session = make_session()
        try:
            yield session
            await session.commit()
        except BaseException:
            await session.rollback()
            raise
        finally:
            await session.close()

    return {
        BASELINE: asynccontextmanager(async_get_session_on(engine)),
        CLOSE: closing_itself,
        BEGIN: make_session.begin,
        SAFESESSION: lambda: async_session_scope(engine),
    }


def nothing(session: Session) -> None:
    pass


def select(session: Session) -> None:
    session.get_one(Item, 1)


def insert(session: Session | AsyncSession) -> None:
    session.add(Order(amount=5))


async def async_nothing(session: AsyncSession) -> None:
    pass


async def async_select(session: AsyncSession) -> None:
    await session.get_one(Item, 1)


async def async_insert(session: AsyncSession) -> None:
    insert(session)


SYNC_WORK: dict[str, Callable[[Session], None]]
SYNC_WORK = {"empty": nothing, "SELECT": select, "INSERT": insert}
ASYNC_WORK: dict[str, Callable[[AsyncSession], Awaitable[None]]]
ASYNC_WORK = {
    "empty": async_nothing,
    "SELECT": async_select,
    "INSERT": async_insert,
}


def time_sync(scope: Scope, work: Callable[[Session], None], times: int) -> float:
    """Return the seconds that it takes."""
    with garbage_kept():
        start = perf_counter()
        for _ in range(times):
            with scope() as session:
                work(session)
        return perf_counter() - start


async def time_async(
    scope: AsyncScope, work: Callable[[AsyncSession], Awaitable[None]], times: int
) -> float:
    with garbage_kept():
        start = perf_counter()
        for _ in range(times):
            async with scope() as session:
                await work(session)
        return perf_counter() - start


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Collect no garbage meanwhile, as in timeit: it may be another variant's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def main() -> None:
    """Time batches, as the parent asks for them."""
    introduce_oneself()
    database = Database(**hear())
    scopes = sync_scopes(database.engine())
    asyncs = async_scopes(database.async_engine())
    answer("ready")
    # What is there for good is not looked at in each collection.
    gc.collect()
    gc.freeze()
    with asyncio.Runner() as runner:
        while asked := hear():
            session, work, variant, times = asked
            if session == "sync":
                found = time_sync(scopes[variant], SYNC_WORK[work], times)
            else:
                timing = time_async(asyncs[variant], ASYNC_WORK[work], times)
                found = runner.run(timing)
            answer(found)


Timer = Callable[[Any], float]


async def measure_scopes(
    database: Database, rounds: int, seconds: float
) -> list[Series]:
    """Measure the variants on one database, in batches of about so many seconds."""
    with process("benchmarks.scopes", ROOT / "src") as (_, say):
        say(asdict(database))
        lanes = {variant: (variant, say) for variant in VARIANTS}
        return await time_lanes(lanes, database.name, rounds, seconds)


async def time_lanes(
    lanes: dict[str, tuple[str, Timer]], database: str, rounds: int, seconds: float
) -> list[Series]:
    """Interleave batches. A lane is a variant, and the process that times it."""
    cases = [
        Case("scope", database, session, work, 0)
        for session in ("sync", "async")
        for work in WORK
    ]
    times = {case: batch_size(case, seconds, *lanes.values()) for case in cases}

    async def measure(lane: tuple[str, Timer], case: Case) -> tuple[float, int]:
        variant, say = lane
        took = say([case.session, case.work, variant, times[case]])
        return times[case] / took, 0

    return await interleave(lanes, cases, rounds, measure)


def batch_size(case: Case, seconds: float, *lanes: tuple[str, Timer]) -> int:
    """Return how often the work of a case is done in so many seconds, or some more."""
    variant, say = lanes[0]
    times = 1
    while say([case.session, case.work, variant, times]) < seconds:
        times *= 2
    return times


async def compare_scopes(
    database: Database, sources: dict[str, Path], rounds: int, seconds: float
) -> list[Series]:
    """Measure two versions of safesession, each in its process."""
    names = [*sources]
    with (
        process("benchmarks.scopes", sources[names[0]]) as (_, say),
        process("benchmarks.scopes", sources[names[1]]) as (_, say_other),
    ):
        say(asdict(database))
        say_other(asdict(database))
        lanes = {
            names[0]: (SAFESESSION, say),
            names[1]: (SAFESESSION, say_other),
        }
        return await time_lanes(lanes, database.name, rounds, seconds)


if __name__ == "__main__":
    main()
