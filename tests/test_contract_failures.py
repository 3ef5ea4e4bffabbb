"""The contract's rows, in every habitat, of an exit of which a step fails."""

import sqlite3
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backends import with_deferred_constraints
from contract import (
    Add,
    AddOrphan,
    Habitat,
    assert_nothing_left,
    assert_usable,
    pool_reset,
)
from models import Note, stored
from safesession.testing._faults import Fault, Faults

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


@pytest.fixture
def invalidated(habitat: Habitat) -> list[object]:
    """Collect the connections that are invalidated."""
    seen: list[object] = []
    event.listen(habitat.engine, "invalidate", lambda *args: seen.append(args[0]))
    return seen


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


def fail_once(method: Callable[[], None]) -> Callable[[], None]:
    failures = [RuntimeError("cannot close")]

    def call() -> None:
        if failures:
            raise failures.pop()
        method()

    return call
