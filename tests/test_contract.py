"""The contract's points 1 to 7, row by row, in every habitat."""

import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from backends import with_deferred_constraints
from contract import (
    Habitat,
    assert_nothing_left,
    assert_usable,
    left_by,
    lines,
)
from models import Note, Reply, stored
from safesession import session_scope
from safesession.testing._faults import Fault, Faults
from safesession.testing._request import InRequest


class Add:
    """Adds and flushes a note, and has `error` raised after it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    def __call__(self, session: Session) -> BaseException | None:
        self.session = session
        session.add(Note(text="kept?"))
        session.flush()
        return self._error


class AddOrphan(Add):
    """Writes what the database will refuse at COMMIT."""

    def __call__(self, session: Session) -> BaseException | None:
        session.add(Reply(note_id=-1))
        return super().__call__(session)


class Poison(Add):
    """Has a flush fail, and hides it."""

    def __call__(self, session: Session) -> BaseException | None:
        session.add_all([Note(text="twice"), Note(text="twice")])
        with pytest.raises(IntegrityError) as self.hidden:
            session.flush()
        self.session = session
        return self._error


pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


@pytest.fixture
def invalidated(habitat: Habitat) -> list[object]:
    """Collect the connections that are invalidated."""
    seen: list[object] = []
    event.listen(habitat.engine, "invalidate", lambda *args: seen.append(args[0]))
    return seen


def test_block_that_ends_normally_is_committed(
    habitat: Habitat, observer: Engine
) -> None:
    """A normal end commits, closes and checks the connection in."""
    add = Add()

    assert habitat.run(add) is None

    assert stored(observer) == ["kept?"]
    assert_nothing_left(habitat, add.session, ["kept?"])


def test_block_that_raises_is_rolled_back(habitat: Habitat, observer: Engine) -> None:
    """An exception rolls back, closes and leaves as it was raised."""
    add = Add(LookupError("gone"))

    left = habitat.run(add)

    assert left is add._error
    assert stored(observer) == []
    assert_nothing_left(habitat, add.session, [])


def test_traceback_is_as_it_would_be_without_the_scope(engine: Engine) -> None:
    """The scope adds no line to the traceback of the exception."""
    error = LookupError("gone")
    without = left_by(nullcontext(Session(engine)), lambda session: error)
    assert without is error
    expected = list(lines(error.__traceback__))
    error.__traceback__ = None

    left_by(session_scope(engine), lambda session: error)

    assert list(lines(error.__traceback__)) == expected


def test_exception_of_commit_on_is_committed_and_leaves(
    habitat: Habitat, observer: Engine
) -> None:
    """`commit_on` keeps the work, and the exception leaves all the same."""
    add = Add(KeyError("audited"))

    left = habitat.run(add, commit_on=(OSError, LookupError))

    assert left is add._error
    assert stored(observer) == ["kept?"]
    assert_nothing_left(habitat, add.session, ["kept?"])


def test_exception_outside_of_commit_on_is_rolled_back(
    habitat: Habitat, observer: Engine
) -> None:
    """`commit_on` says nothing of other exceptions."""
    assert isinstance(habitat.run(Add(ValueError()), commit_on=KeyError), ValueError)

    assert stored(observer) == []


def test_unused_session_makes_no_connection_and_no_commit(
    habitat: Habitat, observer: Engine
) -> None:
    """An exit that has nothing to do does nothing."""
    done: list[str] = []
    event.listen(habitat.engine, "checkout", lambda *args: done.append("checkout"))
    used: list[Session] = []

    def look(session: Session) -> None:
        event.listen(session, "before_commit", lambda _: done.append("commit"))
        event.listen(session, "after_soft_rollback", lambda *_: done.append("rollback"))
        used.append(session)

    assert habitat.run(look) is None

    assert done == []
    assert_nothing_left(habitat, used[0], [])


@with_deferred_constraints
@pytest.mark.parametrize("reset_on_return", ["rollback", None])
def test_failing_commit_is_raised_after_rollback_and_close(
    habitat: Habitat, observer: Engine, reset_on_return: str | None
) -> None:
    """A commit that fails is raised, and its transaction is not left open."""
    habitat.engine.pool._reset_on_return = pool_reset(reset_on_return)
    add = AddOrphan()

    left = habitat.run(add)

    assert isinstance(left, IntegrityError)
    assert "FOREIGN KEY" in str(left).upper()
    assert_nothing_left(habitat, add.session, [])


@with_deferred_constraints
def test_failing_commit_keeps_its_context_in_an_exception_handler(
    habitat: Habitat,
) -> None:
    """What the driver said of the commit is not hidden by what is being handled."""
    try:
        raise LookupError("being handled")
    except LookupError:
        left = habitat.run(AddOrphan())

    assert isinstance(left, IntegrityError)
    assert left.__context__ is left.orig


@with_deferred_constraints
def test_failing_commit_of_commit_on_does_not_replace_the_exception(
    habitat: Habitat, caplog: pytest.LogCaptureFixture
) -> None:
    """A commit asked for by `commit_on` that fails is logged and noted."""
    error = ValueError("audited")
    add = AddOrphan(error)

    left = habitat.run(add, commit_on=ValueError)

    assert left is error
    (note,) = error.__notes__
    assert re.fullmatch(
        "safesession: commit failed, so what was not committed was rolled back: "
        r"sqlalchemy\.exc\.IntegrityError \((sqlite3\.IntegrityError|"
        r"\S*(psycopg|asyncpg)\S*(Violation|Error), SQLSTATE 23503)\)",
        note,
    )
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.text.count(note) == 1
    assert_nothing_left(habitat, add.session, [])


@pytest.mark.parametrize("reset_on_return", ["rollback", "commit", None])
@pytest.mark.parametrize("always", [False, True])
def test_failing_rollback_does_not_replace_the_exception(
    habitat: Habitat,
    invalidated: list[object],
    caplog: pytest.LogCaptureFixture,
    reset_on_return: str | None,
    always: bool,
) -> None:
    """A rollback that fails is logged and noted, and its connection invalidated."""
    habitat.engine.pool._reset_on_return = pool_reset(reset_on_return)
    error = ValueError("the cause")
    add = Add(error)

    failure = sqlite3.OperationalError("disk I/O error")
    fault = Fault(failure, always=always)
    with Faults(habitat.engine, {"rollback": fault}):
        left = habitat.run(add)

    assert left is error
    note = (
        "safesession: rollback failed, so the connection was invalidated: "
        "sqlite3.OperationalError: disk I/O error"
    )
    assert error.__notes__ == [note]
    (record,) = (r for r in caplog.records if r.name == "safesession")
    assert record.levelname == "ERROR"
    told = record.getMessage()
    assert told.startswith(note)
    assert "in call" in told
    assert "in raise_if_any" in told
    assert len(invalidated) == 1
    assert_nothing_left(habitat, add.session, [])


def test_failing_rollback_below_a_savepoint_invalidates_too(
    habitat: Habitat, invalidated: list[object]
) -> None:
    """A savepoint that is still open does not hide the rollback that fails."""
    error = ValueError("the cause")

    def leave_open(session: Session) -> BaseException:
        session.add(Note(text="outer"))
        session.flush()
        session.begin_nested()
        session.connection()
        return error

    with Faults(habitat.engine, {"rollback": RuntimeError("torn")}):
        left = habitat.run(leave_open)

    assert left is error
    assert len(invalidated) == 1
    assert_usable(habitat, [])


def test_connection_that_was_lost_is_no_second_failure(
    habitat: Habitat, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the connection is gone, nothing is rolled back and nothing told."""
    error = ValueError("the cause")

    def lose(session: Session) -> BaseException:
        session.add(Note(text="lost"))
        session.flush()
        session.connection().invalidate()
        return error

    assert habitat.run(lose) is error
    assert not hasattr(error, "__notes__")
    assert caplog.records == []
    assert_usable(habitat, [])


@pytest.fixture
def refusing_filter() -> Iterator[None]:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    logger = logging.getLogger("safesession")
    logger.addFilter(refuse)
    yield
    logger.removeFilter(refuse)


@pytest.mark.usefixtures("refusing_filter")
def test_logging_that_fails_takes_nothing_s_place(habitat: Habitat) -> None:
    """A logging filter that raises is no failure of the exit; the note is there."""
    error = ValueError("the cause")
    add = Add(error)

    with Faults(habitat.engine, {"rollback": RuntimeError("torn")}):
        left = habitat.run(add)

    assert left is error
    assert len(error.__notes__) == 1
    assert_nothing_left(habitat, add.session, [])


class Hostile(Exception):
    """Raises when asked for its truth or its text."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __str__(self) -> str:
        raise ZeroDivisionError


class Unreadable(Hostile):
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError


@pytest.fixture
def hostile(habitat: Habitat) -> type[Exception]:
    """Return the worst exception that the habitat could stand without a scope."""
    # contextlib, and so FastAPI, does not get past reading one.
    return Hostile if isinstance(habitat.harness, InRequest) else Unreadable


def test_hostile_exception_of_a_commit_hook_leaves(
    habitat: Habitat, hostile: type[Exception]
) -> None:
    """A commit that fails by an exception that raises when looked at is raised."""
    failure = hostile()

    def refuse(*args: object) -> None:
        raise failure

    def listen(session: Session) -> None:
        session.add(Note(text="lost"))
        event.listen(session, "before_commit", refuse)

    assert habitat.run(listen) is failure
    assert_usable(habitat, [])


@pytest.mark.parametrize("hostile_too", [False, True])
def test_hostile_exception_is_not_replaced_by_what_is_told_of_it(
    habitat: Habitat, hostile: type[Exception], hostile_too: bool
) -> None:
    """An exception that raises when looked at leaves, and the exit is complete."""
    error = hostile()
    failure = hostile() if hostile_too else RuntimeError("torn")
    add = Add(error)

    with Faults(habitat.engine, {"rollback": Fault(failure)}):
        left = habitat.run(add)

    assert left is error
    assert_nothing_left(habitat, add.session, [])


def test_interrupt_while_a_failure_is_logged_is_not_held_back(habitat: Habitat) -> None:
    """An interrupt that arrives in a logging filter leaves, after the exit."""
    interrupt = KeyboardInterrupt()
    add = Add(ValueError("the cause"))

    logger = logging.getLogger("safesession")
    with (
        Faults(habitat.engine, {"rollback": RuntimeError("torn")}),
        patch.object(logger, "error", side_effect=interrupt),
    ):
        left = habitat.run(add)

    assert left is interrupt
    assert_nothing_left(habitat, add.session, [])


@pytest.mark.filterwarnings("ignore:transaction already deassociated")
def test_connection_that_the_block_has_closed_is_no_failure(
    habitat: Habitat, caplog: pytest.LogCaptureFixture
) -> None:
    """A block that closes its session's connection leaves nothing to roll back."""
    error = ValueError("the cause")

    def close(session: Session) -> BaseException:
        session.add(Note(text="lost"))
        session.flush()
        session.connection().close()
        return error

    assert habitat.run(close) is error
    assert not hasattr(error, "__notes__")
    assert caplog.records == []
    assert_usable(habitat, [])


def test_hook_that_fails_when_the_transaction_is_gone_is_told_once(
    habitat: Habitat,
) -> None:
    """A hook that fails after all was ended is no failing rollback on top of it."""
    refusal = ValueError("refused")
    used: list[Session] = []

    def refuse(*args: object) -> None:
        raise refusal

    def listen(session: Session) -> None:
        session.add(Note(text="kept"))
        session.flush()
        event.listen(session, "after_transaction_end", refuse)
        used.append(session)

    assert habitat.run(listen) is refusal
    assert not hasattr(refusal, "__notes__")
    assert_nothing_left(habitat, used[0], ["kept"])


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(3)])
def test_interrupt_during_rollback_leaves_with_the_exception_as_context(
    habitat: Habitat, invalidated: list[object], interrupt: BaseException
) -> None:
    """An interrupt that arrives during cleanup is raised; the connection is back."""
    error = ValueError("the cause")
    add = Add(error)

    with Faults(habitat.engine, {"rollback": interrupt}):
        left = habitat.run(add)

    assert left is interrupt
    assert left.__context__ is error
    assert len(invalidated) == 1
    assert_nothing_left(habitat, add.session, [])


def test_interrupt_during_commit_leaves_after_rollback(
    habitat: Habitat, observer: Engine
) -> None:
    """An interrupt that arrives during the commit rolls it back."""
    interrupt = KeyboardInterrupt()
    add = Add()

    with Faults(habitat.engine, {"commit": interrupt}):
        left = habitat.run(add)

    assert left is interrupt
    assert stored(observer) == []
    assert_nothing_left(habitat, add.session, [])


def test_exception_raised_again_by_the_rollback_is_no_second_failure(
    habitat: Habitat, invalidated: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """A rollback that raises the exception leaving adds nothing to it."""
    error = ValueError("the cause")

    with Faults(habitat.engine, {"rollback": error}):
        left = habitat.run(Add(error))

    assert left is error
    assert not hasattr(error, "__notes__")
    assert caplog.records == []
    assert len(invalidated) == 1


@with_deferred_constraints
def test_two_failures_of_an_exit_are_told_apart(habitat: Habitat) -> None:
    """Where the rollback after a failed commit fails too, the commit's error leaves."""
    add = AddOrphan()

    with Faults(habitat.engine, {"rollback": RuntimeError("torn")}):
        left = habitat.run(add)

    assert isinstance(left, IntegrityError)
    (note,) = left.__notes__
    assert note == (
        "safesession: rollback failed, so the connection was invalidated: "
        "RuntimeError: torn"
    )
    assert_nothing_left(habitat, add.session, [])


def test_failing_close_is_logged_and_the_work_stays_committed(
    habitat: Habitat, observer: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A close that fails after the commit does not undo the success."""
    used: list[Session] = []

    def add(session: Session) -> None:
        session.add(Note(text="kept?"))
        used.append(session)
        session.close = fail_once(session.close)  # type: ignore[method-assign]

    assert habitat.run(add) is None

    assert stored(observer) == ["kept?"]
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "safesession: close failed, so the connection may not be back in the pool: "
        "RuntimeError: cannot close"
    )
    assert_nothing_left(habitat, used[0], ["kept?"])


@pytest.mark.parametrize("hook", ["before_commit", "after_commit"])
def test_failing_hook_is_raised_without_a_second_failure(
    habitat: Habitat, observer: Engine, invalidated: list[object], hook: str
) -> None:
    """A hook that fails around the COMMIT leaves, whether or not it came too late."""
    refusal = ValueError("refused")
    used: list[Session] = []

    def refuse(*args: object) -> None:
        raise refusal

    def listen(session: Session) -> None:
        session.add(Note(text="kept?"))
        event.listen(session, hook, refuse)
        used.append(session)

    assert habitat.run(listen) is refusal
    assert not hasattr(refusal, "__notes__")
    assert invalidated == []
    kept = ["kept?"] if hook == "after_commit" else []
    assert stored(observer) == kept
    assert_nothing_left(habitat, used[0], kept)


@pytest.mark.parametrize("error", [None, ValueError("later")])
def test_poisoned_session_does_not_end_normally(
    habitat: Habitat, observer: Engine, error: ValueError | None
) -> None:
    """A failed flush that was caught is told, unless something else was raised."""
    poison = Poison(error)

    left = habitat.run(poison)

    if error is None:
        assert isinstance(left, PendingRollbackError)
        assert str(poison.hidden.value.orig) in str(left)
    else:
        assert left is error
    assert stored(observer) == []
    assert_nothing_left(habitat, poison.session, [])


def test_savepoint_left_open_is_part_of_the_scope(
    habitat: Habitat, observer: Engine
) -> None:
    """A savepoint that the block leaves open ends with the scope."""

    def leave_open(session: Session) -> None:
        session.add(Note(text="outer"))
        session.begin_nested()
        session.add(Note(text="inner"))

    assert habitat.run(leave_open) is None
    assert stored(observer) == ["inner", "outer"]


def test_rolled_back_work_is_not_committed_by_the_next_scope(
    habitat: Habitat, observer: Engine
) -> None:
    """The next scope on the connection commits its own work alone."""
    habitat.run(Add(ValueError()))

    assert_usable(habitat, [])
    assert stored(observer) == ["next"]


def test_nothing_written_holds_bound_parameters(
    habitat: Habitat, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the note nor the log record holds what a statement was given."""
    error = ValueError()

    def clash(session: Session) -> BaseException:
        session.add_all([Note(text="secret"), Note(text="secret")])
        return error

    habitat.run(clash, commit_on=ValueError)

    assert "IntegrityError" in error.__notes__[0]
    assert "secret" not in "".join(error.__notes__) + caplog.text


def fail_once(method: Callable[[], None]) -> Callable[[], None]:
    failures = [RuntimeError("cannot close")]

    def call() -> None:
        if failures:
            raise failures.pop()
        method()

    return call


def pool_reset(mode: str | None) -> Any:
    """Return how a pool writes down its `reset_on_return`."""
    pool = QueuePool(lambda: None, reset_on_return=mode)  # type: ignore[arg-type]
    return pool._reset_on_return
