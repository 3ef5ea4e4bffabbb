"""What is told of a failure that may not take another's place."""

import sqlite3
import traceback
from dataclasses import dataclass

import pytest
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    StatementError,
)

from safesession._report import describe, report


class Serialization(Exception):
    sqlstate = "40001"


class Mute(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@dataclass(frozen=True)
class Frozen(Exception):
    pass


INSERT = "INSERT INTO note (text) VALUES (?)"


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (RuntimeError("torn"), "RuntimeError: torn"),
        (RuntimeError("torn\nin two"), "RuntimeError: torn"),
        (Mute(), "test_report.Mute: <it has no text>"),
        (RuntimeError(), "RuntimeError"),
        (
            OperationalError(None, None, sqlite3.OperationalError("disk full")),
            "sqlalchemy.exc.OperationalError (sqlite3.OperationalError: disk full)",
        ),
        (
            OperationalError(INSERT, ("secret",), sqlite3.OperationalError("secret")),
            "sqlalchemy.exc.OperationalError (sqlite3.OperationalError)",
        ),
        (
            IntegrityError(None, None, sqlite3.IntegrityError("Key (text)=(secret)")),
            "sqlalchemy.exc.IntegrityError (sqlite3.IntegrityError)",
        ),
        (
            DBAPIError(None, None, Serialization("secret")),
            "sqlalchemy.exc.DBAPIError (test_report.Serialization, SQLSTATE 40001)",
        ),
        (
            StatementError("secret", INSERT, ("secret",), None),
            "sqlalchemy.exc.StatementError",
        ),
        (
            PendingRollbackError("Original exception was: ... secret"),
            "sqlalchemy.exc.PendingRollbackError",
        ),
        (InvalidRequestError("secret"), "sqlalchemy.exc.InvalidRequestError"),
    ],
)
def test_description_holds_no_values(error: BaseException, described: str) -> None:
    """A class, a code, and a text only where no row and no statement is quoted."""
    assert describe(error) == described


def test_exception_that_refuses_a_note_goes_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception that refuses attributes leaves as it is; the log has the failure."""
    error = Frozen()

    report("rollback", RuntimeError("torn"), error)

    assert not hasattr(error, "__notes__")
    assert "RuntimeError: torn" in caplog.text


def test_record_has_both_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    """One record shows where the failure, and where the exception leaving, arose."""

    def arise(error: BaseException) -> BaseException:
        try:
            raise_below(error)
        except BaseException as raised:
            return raised
        raise AssertionError

    def raise_below(error: BaseException) -> None:
        raise error

    failure, error = arise(RuntimeError("torn")), arise(ValueError("secret"))
    assert isinstance(failure, Exception)
    report("rollback", failure, error)

    (record,) = caplog.records
    frames_of_failure, frames_of_error = (
        "".join(traceback.format_tb(raised.__traceback__))
        for raised in (failure, error)
    )
    assert f"{record.getMessage()}\n" == (
        "safesession: rollback failed, so the connection was invalidated: "
        f"RuntimeError: torn\n{frames_of_failure}"
        f"The exception leaving is ValueError:\n{frames_of_error}"
    )
    assert frames_of_error.count("\n  File") == 1
