"""Runs of a unit of work of which some calls fail, and what is seen after each."""

import io
import logging
import sqlite3
import warnings
from collections import Counter
from contextlib import redirect_stderr
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import InvalidRequestError, PendingRollbackError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from contract import Habitat, ScopeHabitat
from failing_units import HIDING, KEPT, Unit
from models import Note
from safesession.testing._faults import Fault, Faults


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
        self,
        habitat: Habitat,
        observer: sqlite3.Connection,
        caplog: Any,
        tried: Counter[str],
    ) -> None:
        self._habitat = habitat
        self._tried = tried
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
        if faults:
            self._tried[f"faults, {kind_of(*faults.values())}"] += 1
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


def kind_of(fault: Fault, *more: Fault) -> str:
    if more:
        return "two in a run"
    return "a disconnect" if fault.disconnect else type(fault.error).__name__


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
