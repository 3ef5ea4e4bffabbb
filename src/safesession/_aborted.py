"""Transactions that PostgreSQL has given up: it answers their COMMIT by a ROLLBACK.

It does so without an error, from the first statement that fails. Where the failure was
caught in the block, nothing would tell that nothing was committed.
"""

from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, TwoPhaseTransaction, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session

from ._begun import begun_by
from ._report import describe

# Not the failures themselves: their tracebacks would keep the connections.
_failures: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
_watched: WeakSet[Dialect] = WeakSet()


def watch(dialect: Dialect) -> None:
    """Have failures be remembered on the connections of engines of that dialect."""
    if dialect not in _watched:
        _watched.add(dialect)
        event.listen(dialect, "handle_error", _remember)


def _remember(context: ExceptionContext) -> None:
    failure = context.sqlalchemy_exception
    # What follows in a transaction that is given up says nothing new.
    if context.connection is not None and failure and not _says_given_up(failure):
        _failures[context.connection] = describe(failure)


def require_alive(session: Session) -> None:
    """Raise where a COMMIT of the session would be a ROLLBACK."""
    if not _failures:
        return
    for connection, begun in begun_by(session).items():
        # The PREPARE of a two-phase transaction tells by itself.
        two_phase = isinstance(begun, TwoPhaseTransaction)
        if two_phase or connection not in _failures or not _is_given_up(connection):
            continue
        raise PendingRollbackError(
            "The database has given this transaction up, as a statement in it has "
            "failed, and would answer COMMIT by a ROLLBACK. The failure was caught "
            f"in the block: {_failures[connection]}. Let it leave the block, or "
            "catch it around a 'with session.begin_nested():'."
        )


def _is_given_up(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql("SELECT 1").close()
    except DBAPIError as error:
        if _says_given_up(error):
            return True
        raise
    # A savepoint has undone the failure.
    del _failures[connection]
    return False


def _says_given_up(error: Exception) -> bool:
    driver_error = getattr(error, "orig", None)
    # asyncpg and psycopg name it one way, psycopg2 another.
    codes = (getattr(driver_error, name, None) for name in ("sqlstate", "pgcode"))
    return "25P02" in codes
