"""The contract holds whichever calls of the driver fail, by enumeration."""

import gc
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine, select
from sqlalchemy.pool import NullPool

from contract import HABITATS, Habitat
from failing_runs import Bench
from failing_units import (
    KINDS,
    RESETS,
    UNITS,
    disconnect,
    driver_error,
    interrupt,
    stop,
    unheard,
)
from safesession import session_scope
from safesession.testing._faults import Faults, loses_connections

# `nox -s exhaustive` sets it.
EXHAUSTIVE = bool(os.environ.get("SAFESESSION_EXHAUSTIVE"))


@pytest.fixture(params=HABITATS, ids=lambda kind: kind.__name__)
def make_bench(
    request: pytest.FixtureRequest,
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tried: Counter[str],
) -> Iterator[Callable[..., Bench]]:
    habitats: list[Habitat] = []
    unraisable: list[Any] = []
    observer = sqlite3.connect(tmp_path / "test.db", isolation_level=None, timeout=0)
    observer.execute("PRAGMA synchronous=OFF")

    def make_bench(**options: Any) -> Bench:
        make = make_async_engine if "Async" in request.param.__name__ else make_engine
        habitat = request.param(make(connect_args={"timeout": 0.1}, **options))
        habitats.append(habitat)
        bench = Bench(habitat, observer, caplog, tried)
        # SQLAlchemy's first connection is special: it is asked for its abilities.
        habitat.run(lambda session: session.connection() and None)
        return bench

    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    gc.disable()
    yield make_bench
    gc.enable()
    for habitat in habitats:
        habitat.close()
    observer.close()
    assert unraisable == []


# An interrupt while the pool resets a connection, before SQLAlchemy's issue 13699.
OLD_POOL = loses_connections({"reset": interrupt()})


# SQLAlchemy 2.0 keeps the cursor of an aiosqlite statement that failed.
CURSOR_STAYS_OPEN = sqlalchemy.__version__.startswith("2.0.")


def is_lost_by_sqlalchemy(*failing: tuple[str, Any]) -> bool:
    """Tell whether a connection is out of the pool whoever uses it."""
    *before, (name, kind) = failing
    if kind not in (interrupt, stop):
        return False
    after_reset = name == "close" and any(each in RESETS for each, _ in before)
    return after_reset or (OLD_POOL and name in (*RESETS, "close"))


def failable(calls: list[str]) -> list[int]:
    # A hook of the pool that fails on checkin is told of below.
    return [n for n, name in enumerate(calls, 1) if name != "hook checkin"]


NOT_AND_AFTER = (False, True)
PAIRS = [*product(KINDS[:4], (*KINDS[:3], stop))]
QUEUE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
POOLS: dict[str, dict[str, Any]] = {
    "reset": QUEUE,
    "no reset": {**QUEUE, "pool_reset_on_return": None},
    "null": {"poolclass": NullPool},
}
CASES = [
    (name, pool)
    for name, pool in product(UNITS, POOLS)
    if EXHAUSTIVE or pool == "reset" or name == "raises"
]


@pytest.mark.parametrize("name, pool", CASES)
def test_every_single_call_fails(
    make_bench: Callable[..., Bench], name: str, pool: str
) -> None:
    """Whichever call fails, and however, all or nothing is kept and nothing leaks."""
    bench, unit = make_bench(**POOLS[pool]), UNITS[name]
    if CURSOR_STAYS_OPEN and bench.is_async and name == "poisoned":
        pytest.skip("this SQLAlchemy leaves a failed cursor of aiosqlite open")
    calls = bench.run(unit, {}).faults.calls
    for n, (i, kind), after in product(
        failable(calls), enumerate(KINDS), NOT_AND_AFTER
    ):
        wanted = EXHAUSTIVE or (after is ((n + i) % 4 == 0) and bench.takes(n + i))
        if wanted and not is_lost_by_sqlalchemy((calls[n - 1], kind)):
            bench.run(unit, {n: kind(after=after)})


@pytest.mark.parametrize("name, pool", CASES)
def test_every_pair_of_calls_fails(
    make_bench: Callable[..., Bench], name: str, pool: str
) -> None:
    """Whichever two calls fail, the second of those that follow the first."""
    bench, unit = make_bench(**POOLS[pool]), UNITS[name]
    if CURSOR_STAYS_OPEN and bench.is_async and name == "poisoned":
        pytest.skip("this SQLAlchemy leaves a failed cursor of aiosqlite open")
    calls = bench.run(unit, {}).faults.calls
    # All ways to fail on the scope, whose exit is everybody's; elsewhere each pair of
    # calls by one pair of them, in turn.
    all_ways = EXHAUSTIVE and bench.is_scope and pool == "reset"
    for n, (i, (first, second)) in product(failable(calls), enumerate(PAIRS)):
        one = (calls[n - 1], first)
        wanted = EXHAUSTIVE or ((n + i) % 16 == 0 and bench.takes(n))
        if not wanted or is_lost_by_sqlalchemy(one):
            continue
        then = bench.run(unit, {n: first()}).faults.calls
        for m in failable(then):
            its_turn = all_ways or (n + m + i) % 16 == 0
            wanted = m > n and (its_turn if EXHAUSTIVE else m % 4 == n % 4)
            if wanted and not is_lost_by_sqlalchemy(one, (then[m - 1], second)):
                bench.run(unit, {n: first(), m: second()})


def test_what_sqlalchemy_loses_is_lost_without_a_scope_too() -> None:
    """An interrupt while the pool invalidates what it could not reset loses the place.

    The enumerations leave out what SQLAlchemy's own Session loses.
    """
    assert loses_connections({"reset": driver_error(), "close": interrupt()})
    assert loses_connections({"hook checkin": unheard()})
    assert not (OLD_POOL and sqlalchemy.__version__.startswith("2.1"))


@pytest.mark.allow_session_leaks(reason="the hook keeps it from the pool")
@pytest.mark.parametrize("always", [False, True])
def test_hook_that_fails_on_checkin_is_told_honestly(
    engine: Engine, always: bool
) -> None:
    """A hook that keeps the connection from the pool is no invalidation of it."""
    with (
        Faults(engine, {"hook checkin": unheard(always=always)}),
        pytest.raises(LookupError) as caught,
        session_scope(engine) as session,
    ):
        lost: Any = session.connection().connection.driver_connection
        raise LookupError
    (note,) = caught.value.__notes__
    assert note == (
        "safesession: close failed, so the connection may not be back in the pool: "
        "failing_units.Unheard: of"
    )
    lost.close()
    engine.dispose()


def test_invalidation_that_is_interrupted_leaves_no_rollback_to_fail(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is gone already is not asked for a ROLLBACK."""
    interruption = interrupt()
    with session_scope(engine) as session:
        session.connection()
    with (
        Faults(engine, {"cursor": disconnect(), "close": interruption}),
        pytest.raises(KeyboardInterrupt) as caught,
        session_scope(engine) as session,
    ):
        session.execute(select(1))
    assert caught.value is interruption.error
    if not OLD_POOL:
        assert [each for each in caplog.records if each.name == "safesession"] == []
