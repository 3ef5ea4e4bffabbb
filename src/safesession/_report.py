"""Tell of a failure that may not take another's place: by a note and a log record."""

import logging
import traceback
from contextlib import suppress

from sqlalchemy.exc import (
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from .errors import OutcomeUnknown

logger = logging.getLogger("safesession")

_OF_CONNECTIONS = (InterfaceError, OperationalError, OutcomeUnknown)
_CONSEQUENCE = {
    "exit": "so what was left of it was done then, without a commit",
    "commit": "so what was not committed was rolled back",
    "rollback": "so the connection was invalidated",
    "close": "so the connection may not be back in the pool",
    "invalidate": "so the connection may not be back in the pool",
}


def report(step: str, failure: Exception, leaving: BaseException | None) -> None:
    """Attach the failure of a step of the exit to the exception leaving, and log it.

    May raise, by a logging filter or an exception that is hostile enough.
    """
    message = f"safesession: {step} failed, {_CONSEQUENCE[step]}: {describe(failure)}"
    if leaving is not None:
        attach(leaving, message)
    record = f"{message}\n{_frames(failure)}"
    if leaving is not None:
        record += f"\nThe exception leaving is {_name(leaving)}:\n{_frames(leaving)}"
    logger.error("%s", record)


def attach(error: BaseException, note: str) -> None:
    """Add a note to an error, of whichever kind it is, unless it has that one."""
    # Not error.add_note(), which a class may override; one that refuses attributes, as
    # a frozen dataclass does, goes without the note.
    with suppress(Exception):
        if note not in getattr(error, "__notes__", ()):
            BaseException.add_note(error, note)


def describe(error: BaseException) -> str:
    """Return the class, code and text of an error, without what must stay secret.

    SQLAlchemy's texts hold the parameters of a statement, and a driver's can quote the
    values of a row. Left of them is what a driver says when it could not connect,
    commit or roll back: that is about the connection.
    """
    if not issubclass(type(error), SQLAlchemyError):
        return _first_line(error)
    driver_error = getattr(error, "orig", None)
    if driver_error is None:
        return _name(error)
    told = _name(driver_error)
    if isinstance(error, _OF_CONNECTIONS) and not error.statement:
        told = _first_line(driver_error)
    code = getattr(driver_error, "sqlstate", None)
    return f"{_name(error)} ({told}{f', SQLSTATE {code}' if code else ''})"


def _name(error: BaseException) -> str:
    cls = type(error)
    if cls.__module__ == "builtins":
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def _first_line(error: BaseException) -> str:
    # Not by traceback's formatting, which asks the whole chain for its truth.
    try:
        text = str(error).partition("\n")[0]
    except Exception:
        text = "<it has no text>"
    return f"{_name(error)}: {text}" if text else _name(error)


def _frames(error: BaseException) -> str:
    return "".join(traceback.format_tb(error.__traceback__)).rstrip("\n")
