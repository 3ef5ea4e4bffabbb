"""The contract holds whichever calls of the driver fail, by enumeration."""

import gc
import io
import logging
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import Engine, event, insert, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from contract import HABITATS, Habitat, ScopeHabitat
from models import Note
from safesession import session_scope
from safesession.testing._faults import Fault, Faults, loses_connections

# `nox -s exhaustive` sets it.
EXHAUSTIVE = bool(os.environ.get("SAFESESSION_EXHAUSTIVE"))


class Unheard(Exception):
    """What no driver would raise."""


class Stop(BaseException):
    """What is no Exception, and no KeyboardInterrupt either."""


def driver_error(**options: Any) -> Fault:
    return Fault(sqlite3.OperationalError("disk I/O error"), **options)


def disconnect(**options: Any) -> Fault:
    return driver_error(disconnect=True, **options)


def unheard(**options: Any) -> Fault:
    return Fault(Unheard("of"), **options)


def interrupt(**options: Any) -> Fault:
    return Fault(KeyboardInterrupt(), **options)


def stop(**options: Any) -> Fault:
    return Fault(Stop(), **options)


KINDS = (driver_error, disconnect, unheard, interrupt, stop)
# Those that SQLAlchemy or the pool keeps to itself.
RESETS = ("hook reset", "reset")
KEPT = ("cursor close", *RESETS, "close")


@dataclass(frozen=True)
class Unit:
    """A unit of work: what is done, and what is stored after none, one, two commits."""

    work: Callable[[Session], BaseException | None]
    stored: tuple[list[str], ...]
    options: dict[str, Any] = field(default_factory=dict)


def add(session: Session, *texts: str) -> None:
    session.add_all([Note(text=text) for text in texts])
    session.flush()


def add_flush_query(session: Session) -> None:
    add(session, "a")
    session.scalars(select(Note)).all()
    session.add(Note(text="b"))


def two_flushes(session: Session) -> None:
    add(session, "a")
    add(session, "b", "c")


def many(session: Session) -> None:
    session.execute(insert(Note), [{"text": "a"}, {"text": "b"}])


def savepoint(session: Session) -> None:
    add(session, "a")
    with session.begin_nested():
        add(session, "b")


def raises(session: Session) -> BaseException:
    add(session, "a")
    return LookupError("of the body")


def poisoned(session: Session) -> None:
    with suppress(IntegrityError):
        add(session, "a", "a")


def inner_scope(session: Session) -> None:
    add(session, "a")
    with session_scope(session):
        session.add(Note(text="b"))


def inner_scope_that_raises(session: Session) -> None:
    add(session, "a")
    with suppress(LookupError), session_scope(session):
        add(session, "lost")
        raise LookupError("of the inner body")
    session.add(Note(text="b"))


def own_commit(session: Session) -> None:
    add(session, "a")
    session.commit()
    session.add(Note(text="b"))


def read(session: Session) -> None:
    session.scalars(select(Note)).all()


def unused(session: Session) -> None:
    pass


AB = ([], ["a", "b"])
UNITS = {
    "add, flush, query": Unit(add_flush_query, AB),
    "two flushes": Unit(two_flushes, ([], ["a", "b", "c"])),
    "many": Unit(many, AB),
    "savepoint": Unit(savepoint, AB),
    "raises": Unit(raises, ([],)),
    "commit_on": Unit(raises, ([], ["a"]), {"commit_on": LookupError}),
    "poisoned": Unit(poisoned, ([],)),
    "inner scope": Unit(inner_scope, AB),
    "inner scope that raises": Unit(inner_scope_that_raises, AB),
    "own commit": Unit(own_commit, ([], ["a"], ["a", "b"])),
    "read": Unit(read, ([], [])),
    "unused": Unit(unused, ([],)),
}


HIDING = (UNITS["poisoned"], UNITS["inner scope that raises"])


class Run:
    """One run of a unit, with some of its calls failing, and what came of it."""

    session: Session | None = None
    # What the body raised, or returned to have it raised.
    error: BaseException | None = None
    left: BaseException | None = None
    calls_of_body = told_in_body = 0

    def __init__(
        self, unit: Unit, faults: Faults, records: list[logging.LogRecord]
    ) -> None:
        self.unit = unit
        self.faults = faults
        self._records = records

    def body(self, session: Session) -> BaseException | None:
        self.session = session
        try:
            self.error = self.unit.work(session)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.calls_of_body = len(self.faults.calls)
            self.told_in_body = len(self.told)
        return self.error

    @property
    def told(self) -> list[str]:
        records = (each for each in self._records if each.name == "safesession")
        return [record.getMessage() for record in records]

    @property
    def of_exit(self) -> list[tuple[str, BaseException]]:
        """Return what failed in the exit."""
        return [
            (self.faults.calls[n - 1], fault.error)
            for n, fault in self.faults.injected.items()
            if n > self.calls_of_body
        ]

    @property
    def commits(self) -> int:
        """Return how many commits took effect."""
        injected = self.faults.injected
        return sum(
            name == "commit" and (n not in injected or injected[n].after)
            for n, name in enumerate(self.faults.calls, 1)
        )


class Bench:
    """Runs units in a habitat, and checks what each leaves behind."""

    def __init__(
        self, habitat: Habitat, observer: sqlite3.Connection, caplog: Any
    ) -> None:
        self._habitat = habitat
        self._observer = observer
        self._caplog = caplog
        pool = habitat.engine.pool
        self._driver_connections = 0 if isinstance(pool, NullPool) else pool.checkedin()  # type: ignore[attr-defined]
        event.listen(habitat.engine, "connect", self._opened)
        event.listen(habitat.engine, "close", self._closed)

    @property
    def is_async(self) -> bool:
        return self._habitat.engine.dialect.is_async

    @property
    def is_scope(self) -> bool:
        return isinstance(self._habitat, ScopeHabitat)

    def takes(self, number: int) -> bool:
        """Tell whether it is among the samples of an ordinary run."""
        return self.is_scope or number % 5 == 0

    def _opened(self, dbapi_connection: Any, record: Any) -> None:
        self._driver_connections += 1

    def _closed(self, dbapi_connection: Any, record: Any) -> None:
        self._driver_connections -= 1

    def run(self, unit: Unit, faults: dict[int | str, Fault]) -> Run:
        """Run a unit with faults, and hold it and the next one against the contract."""
        self._caplog.clear()
        run = Run(unit, Faults(self._habitat.engine, faults), self._caplog.records)
        stderr = io.StringIO()
        with (
            warnings.catch_warnings(record=True, action="always") as warned,
            redirect_stderr(stderr),
            run.faults,
        ):
            run.left = self._habitat.run(run.body, **unit.options)
        try:
            assert warned == []
            assert stderr.getvalue() == ""
            self._check_pool()
            check_closed(run.session)
            stored = self._stored()
            assert stored == unit.stored[run.commits]
            check_what_left(run)
            check_what_was_told(run)
            self._check_next(stored)
        except BaseException as error:
            error.add_note(f"Calls: {run.faults.calls}, failed: {run.faults.injected}")
            raise
        return run

    def _stored(self) -> list[str]:
        rows = self._observer.execute("SELECT text FROM note ORDER BY text")
        return [text for (text,) in rows.fetchall()]

    def _check_pool(self) -> None:
        pool = self._habitat.engine.pool
        if isinstance(pool, NullPool):
            assert self._driver_connections == 0
        else:
            assert pool.checkedout() == 0  # type: ignore[attr-defined]
            assert self._driver_connections <= pool.checkedin()  # type: ignore[attr-defined]

    def _check_next(self, stored: list[str]) -> None:
        found: list[str] = []

        def look_and_add(session: Session) -> None:
            driver_connection = session.connection().connection.driver_connection
            assert driver_connection is not None
            assert not driver_connection.in_transaction
            found.extend(session.scalars(select(Note.text).order_by(Note.text)))
            session.add(Note(text="next"))

        left = self._habitat.run(look_and_add)
        if left is not None:
            raise left
        assert found == stored
        assert self._observer.execute("DELETE FROM note").rowcount == len(stored) + 1
        self._check_pool()


def check_closed(session: Session | None) -> None:
    if session is not None:
        assert not session.in_transaction()
        with pytest.raises(InvalidRequestError, match="permanently closed"):
            session.execute(text("SELECT 1"))


def check_what_left(run: Run) -> None:
    """Check that the right exception left, with the right context."""
    errors = [error for _, error in run.of_exit]
    not_held_back = [error for error in errors if not isinstance(error, Exception)]
    if not_held_back:
        assert run.left is not_held_back[-1]
        before = [run.error, *not_held_back][-2]
        # The second interrupt of one step is SQLAlchemy's to chain.
        assert run.left.__context__ in (before, run.error) or before is None
    elif run.error is not None:
        assert run.left is run.error
    elif run.left is None:
        assert {name for name, _ in run.of_exit} <= {*KEPT}
        assert run.commits == len(run.unit.stored) - 1
    elif isinstance(run.left, PendingRollbackError):
        # The body has hidden a failed flush, or what a failing ROLLBACK TO was told of.
        assert run.unit in HIDING
    else:
        # A failing commit, whichever of the calls that it made has failed.
        assert {run.left, getattr(run.left, "orig", None)} & {*errors}


def check_what_was_told(run: Run) -> None:
    """Check that there is one record for each failure that took no other's place."""
    told = run.told
    for message in told:
        failure, _, leaving = message.partition("\nThe exception leaving is ")
        assert "_faults.py" in failure
        assert run.left is None or 'File "' in leaving
    seen = chain(run.left)
    untold = [
        error
        for name, error in run.of_exit
        if name not in KEPT and isinstance(error, Exception) and error not in seen
    ]
    told_of_exit = told[run.told_in_body :]
    # Two calls of one step may fail, as a flush and its ROLLBACK; an interrupt among
    # them is what comes of the step.
    interrupted = any(not isinstance(error, Exception) for _, error in run.of_exit)
    least = 1 if untold and not interrupted else 0
    assert least <= len(told_of_exit) <= len(untold)
    if run.error is not None:
        noted = [message.partition("\n")[0] for message in told_of_exit]
        assert noted == getattr(run.error, "__notes__", [])


def chain(error: BaseException | None) -> list[BaseException]:
    """Return what is seen of an exception and of those that led to it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return seen


@pytest.fixture(params=HABITATS, ids=lambda kind: kind.__name__)
def make_bench(
    request: pytest.FixtureRequest,
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Bench]]:
    habitats: list[Habitat] = []
    unraisable: list[Any] = []
    observer = sqlite3.connect(tmp_path / "test.db", isolation_level=None, timeout=0)
    observer.execute("PRAGMA synchronous=OFF")

    def make_bench(**options: Any) -> Bench:
        make = make_async_engine if "Async" in request.param.__name__ else make_engine
        habitat = request.param(make(connect_args={"timeout": 0.1}, **options))
        habitats.append(habitat)
        bench = Bench(habitat, observer, caplog)
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
        "test_faults.Unheard: of"
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
