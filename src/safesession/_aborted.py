"""Transactions that a database has given up, while the block goes on as before.

PostgreSQL answers their COMMIT by a ROLLBACK, without an error, from the first
statement that fails. MySQL and MariaDB undo all of a transaction that is in a deadlock,
savepoints included, and commit what comes after. Where the failure was caught in the
block, nothing would tell.
"""

from typing import NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, Transaction, TwoPhaseTransaction, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session

from ._begun import begun_by
from ._codes import mysql_code, sqlstate_of
from ._report import describe

WATCHED = frozenset({"postgresql", "mysql", "mariadb"})
_DEADLOCK = 1213


class _Failure(NamedTuple):
    # Not the failure itself: its traceback would keep the connection.
    told: str
    # In which transaction a deadlock was, as then there is nothing to ask the server.
    undone: ReferenceType[Transaction] | None


_failures: WeakKeyDictionary[Connection, _Failure] = WeakKeyDictionary()
_watched: WeakSet[Dialect] = WeakSet()


def watch(dialect: Dialect) -> None:
    """Have failures be remembered on the connections of engines of that dialect."""
    if dialect not in _watched:
        _watched.add(dialect)
        event.listen(dialect, "handle_error", _remember)


def _remember(context: ExceptionContext) -> None:
    failure, connection = context.sqlalchemy_exception, context.connection
    if failure is None or connection is None:
        return
    told, transaction = describe(failure), connection.get_transaction()
    if context.dialect.name != "postgresql":
        driver_error = getattr(failure, "orig", None) or failure
        if mysql_code(driver_error) == _DEADLOCK and transaction is not None:
            _failures[connection] = _Failure(told, ref(transaction))
    # What follows in a transaction that is given up says nothing new.
    elif not _says_given_up(failure):
        _failures[connection] = _Failure(told, None)


def require_alive(session: Session) -> None:
    """Raise where a COMMIT of the session would not commit what it seems to."""
    if not _failures:
        return
    for connection, begun in begun_by(session).items():
        failure = _failures.get(connection)
        # The PREPARE of a two-phase transaction tells by itself.
        if failure is None or isinstance(begun, TwoPhaseTransaction):
            continue
        if failure.undone is not None:
            if failure.undone() is not connection.get_transaction():
                continue
            consequence = "has undone all that was before the failure"
        elif _is_given_up(connection):
            consequence = "would answer COMMIT by a ROLLBACK"
        else:
            continue
        raise PendingRollbackError(
            "The database has given this transaction up, as a statement in it has "
            f"failed, and {consequence}. The failure was caught in the block: "
            f"{failure.told}. Let it leave the block, or catch it around a 'with "
            "session.begin_nested():'."
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
    return sqlstate_of(getattr(error, "orig", None)) == "25P02"
