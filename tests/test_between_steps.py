"""What strikes between two steps of an exit: those that are left are taken still.

`test_interrupted` does this at every opcode; here are the outcomes, one by one.
"""

from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction

from models import Note, stored
from safesession import session_scope


class Struck(Session):
    """A session that raises `blow` once, when its exit asks for its state."""

    blow: BaseException | None = None

    def in_transaction(self) -> bool:
        self._strike()
        return super().in_transaction()

    def get_nested_transaction(self) -> SessionTransaction | None:
        self._strike()
        return super().get_nested_transaction()

    def _strike(self) -> None:
        blow, self.blow = self.blow, None
        if blow is not None:
            raise blow


def struck_by(
    blow: BaseException, bind: Any, error: BaseException | None = None, **options: Any
) -> BaseException | None:
    """Return what leaves a scope whose body raises `error`, and whose exit `blow`."""
    try:
        with session_scope(bind, **options) as session:
            session.add(Note(text="inner"))
            session.flush()
            session.blow = blow
            if error is not None:
                raise error
    except BaseException as left:
        return left
    return None


@pytest.mark.parametrize("blow", [KeyboardInterrupt(), OSError("torn")])
def test_end_of_a_block_is_no_commit(engine: Engine, blow: BaseException) -> None:
    """The blow leaves, without a context, and nothing is committed."""
    assert struck_by(blow, engine, class_=Struck) is blow
    assert blow.__context__ is None
    assert not hasattr(blow, "__notes__")
    assert stored(engine) == []


def test_interrupt_has_the_exception_of_the_block_as_its_context(
    engine: Engine,
) -> None:
    """A KeyboardInterrupt is not held back by an exception."""
    blow, error = KeyboardInterrupt(), LookupError()

    assert struck_by(blow, engine, error, class_=Struck) is blow
    assert blow.__context__ is error
    assert stored(engine) == []


@pytest.mark.parametrize("options", [{}, {"commit_on": LookupError}])
def test_failure_is_a_note_on_the_exception_of_the_block(
    engine: Engine, options: dict[str, Any]
) -> None:
    """A failure does not take the exception's place, and what it means is told."""
    error = LookupError()

    left = struck_by(OSError("torn"), engine, error, class_=Struck, **options)

    assert left is error
    (note,) = error.__notes__
    assert note == (
        "safesession: exit failed, so what was left of it was done then, without a "
        "commit: OSError: torn"
    )
    assert stored(engine) == []


def test_outer_session_stays_open(engine: Engine) -> None:
    """In a savepoint, what is left to do is to roll back to it."""
    blow = KeyboardInterrupt()

    with session_scope(engine, class_=Struck) as outer:
        outer.add(Note(text="outer"))
        assert struck_by(blow, outer) is blow

    assert stored(engine) == ["outer"]


class Striking(type):
    """The type of exception types that raise when they are compared."""

    def __subclasscheck__(cls, other: type) -> bool:
        raise KeyboardInterrupt


class Incomparable(Exception, metaclass=Striking):
    pass


def test_interrupt_before_the_outcome_is_decided(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is rolled back and the session closed; failures are notes."""
    entered: list[Session] = []

    def fail(*args: object) -> None:
        raise OSError("torn")

    with (
        pytest.raises(KeyboardInterrupt) as caught,
        session_scope(engine, commit_on=Incomparable) as session,
    ):
        entered.append(session)
        session.add(Note(text="lost"))
        session.flush()
        monkeypatch.setattr(engine.dialect, "do_rollback", fail)
        raise LookupError

    assert caught.value.__notes__ == [
        "safesession: rollback failed, so the connection was invalidated: OSError: torn"
    ]
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        entered[0].execute(text("SELECT 1"))
    monkeypatch.undo()
    assert stored(engine) == []
