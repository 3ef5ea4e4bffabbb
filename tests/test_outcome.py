"""The one decision, as a table."""

import pytest

from safesession._outcome import Outcome, decide


class Masked(Exception):
    """Says nothing of its class to those who ask it."""

    @property
    def __class__(self) -> type:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("error", "commit_on", "outcome"),
    [
        (None, (), "commit"),
        (None, (ValueError,), "commit"),
        (ValueError(), (), "rollback"),
        (ValueError(), (ValueError,), "commit"),
        (KeyError(), (LookupError,), "commit"),
        (KeyError(), (OSError, LookupError), "commit"),
        (LookupError(), (KeyError,), "rollback"),
        (KeyboardInterrupt(), (Exception,), "rollback"),
        (KeyboardInterrupt(), (BaseException,), "commit"),
        (ExceptionGroup("", [KeyError()]), (KeyError,), "rollback"),
    ],
)
def test_decision(
    error: BaseException | None,
    commit_on: tuple[type[BaseException], ...],
    outcome: Outcome,
) -> None:
    """A normal end and the types of `commit_on` commit; all else rolls back."""
    assert decide(error, commit_on) is outcome


def test_decision_on_what_is_read_only() -> None:
    """It never commits; a normal end is looked at for what was not flushed."""
    assert decide(None, None) == "check"
    assert decide(ValueError(), None) == "rollback"
    assert decide(KeyboardInterrupt(), None) == "rollback"


def test_decision_asks_nothing_of_the_exception() -> None:
    """An exception that raises when asked for its class is decided on all the same."""
    assert decide(Masked(), (ValueError,)) == "rollback"
    assert decide(Masked(), (Masked,)) == "commit"
