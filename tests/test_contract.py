"""The contract's points 1 to 7, row by row, in every habitat."""

import re
from contextlib import nullcontext

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session

from backends import with_deferred_constraints
from contract import (
    Add,
    AddOrphan,
    Habitat,
    assert_nothing_left,
    assert_usable,
    left_by,
    lines,
    pool_reset,
)
from models import Note, stored
from safesession import session_scope

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


class Poison(Add):
    """Has a flush fail, and hides it."""

    def __call__(self, session: Session) -> BaseException | None:
        session.add_all([Note(text="twice"), Note(text="twice")])
        with pytest.raises(IntegrityError) as self.hidden:
            session.flush()
        self.session = session
        return self._error


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
