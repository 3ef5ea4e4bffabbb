"""Transactions that a database has given up, while the block goes on as before.

PostgreSQL answers their COMMIT by a ROLLBACK, without an error, from the first
statement that fails. MySQL and MariaDB undo all of a transaction that is in a deadlock,
savepoints included, and commit what comes after; SQLite does so at an OR ROLLBACK, at a
trigger that says so, and where it has no room left. Where the failure was caught in the
block, nothing would tell.
"""

from typing import Any, NamedTuple
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, Transaction, TwoPhaseTransaction, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.orm import Session

from ._autocommit import commits_each
from ._begun import begun_by
from ._codes import mysql_code, sqlstate_of
from ._report import describe
from ._sqlite import begin_sqlite, has_begun_on_sqlite

# What MySQL and MariaDB say when they have undone the transaction, and not the
# statement alone.
_UNDOING = {
    1020,  # ER_CHECKREAD, under MariaDB's snapshot isolation
    1206,  # ER_LOCK_TABLE_FULL
    1213,  # ER_LOCK_DEADLOCK
}
# After it, that is for an option of the server's to say.
_LOCK_WAIT_TIMEOUT = 1205
_BEGUN = "safesession: begun before the last statement"


class _Failure(NamedTuple):
    # Not the failure itself: its traceback would keep the connection.
    told: str
    # Which transaction it has undone, as then there is nothing to ask the server.
    undone: ReferenceType[Transaction] | None = None
    # But where it may have undone the statement alone.
    in_doubt: bool = False


_failures: WeakKeyDictionary[Connection, _Failure] = WeakKeyDictionary()
_watched: WeakSet[Dialect] = WeakSet()


def watch(dialect: Dialect) -> None:
    """Have failures be remembered on the connections of engines of that dialect."""
    if dialect not in _watched:
        _watched.add(dialect)
        event.listen(dialect, "handle_error", _REMEMBERING[dialect.name])
        if dialect.name == "sqlite":
            for step in ("do_execute", "do_executemany", "do_execute_no_params"):
                event.listen(dialect, step, _note_begun)


def _remember_on_postgresql(context: ExceptionContext) -> None:
    failure, connection = context.sqlalchemy_exception, context.connection
    # What follows in a transaction that is given up says nothing new.
    if failure is None or connection is None or _says_given_up(failure):
        return
    _failures[connection] = _Failure(describe(failure))


def _remember_on_mysql(context: ExceptionContext) -> None:
    failure, connection = context.sqlalchemy_exception, context.connection
    if failure is None or connection is None:
        return
    code = mysql_code(getattr(failure, "orig", None) or failure)
    in_doubt = code == _LOCK_WAIT_TIMEOUT
    transaction = connection.get_transaction()
    if transaction is None or not (code in _UNDOING or in_doubt):
        return
    # What was before is committed, then.
    if commits_each(connection):
        return
    # One that is not in doubt stays.
    if not (in_doubt and _has_failed_in(connection, transaction)):
        _failures[connection] = _Failure(describe(failure), ref(transaction), in_doubt)


def _remember_on_sqlite(context: ExceptionContext) -> None:
    failure, connection = context.sqlalchemy_exception, context.connection
    if failure is None or connection is None or context.execution_context is None:
        return
    transaction = connection.get_transaction()
    if transaction is None or not connection.info.get(_BEGUN):
        return
    if has_begun_on_sqlite(connection) is not False:
        return
    _failures[connection] = _Failure(describe(failure), ref(transaction))
    try:
        # Or what comes after would be committed statement by statement.
        connection.exec_driver_sql("BEGIN")
    except Exception:
        connection.invalidate()


def _note_begun(*sent: Any) -> None:
    # The last of what a driver is sent is the context of the statement.
    context = sent[-1]
    connection: Connection = context.root_connection
    # The driver takes it for no write, and would have it committed by itself.
    writes = context.isinsert or context.isupdate or context.isdelete
    if writes and context.statement.startswith("WITH") and not commits_each(connection):
        begin_sqlite(connection)
    connection.info[_BEGUN] = has_begun_on_sqlite(connection)


def _has_failed_in(connection: Connection, transaction: Transaction | None) -> bool:
    failure = _failures.get(connection)
    return (
        failure is not None
        and failure.undone is not None
        and (failure.undone() is transaction)
    )


_REMEMBERING = {
    "sqlite": _remember_on_sqlite,
    "postgresql": _remember_on_postgresql,
    "mysql": _remember_on_mysql,
    "mariadb": _remember_on_mysql,
}
WATCHED = _REMEMBERING.keys()


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
            if not _has_failed_in(connection, connection.get_transaction()):
                continue
            if failure.in_doubt and not _undoes_at_timeout(connection):
                continue
            consequence = "has undone all that was before the failure"
            # It undoes savepoints, too.
            advice = "Let it leave the block."
        elif _is_given_up(connection):
            consequence = "would answer COMMIT by a ROLLBACK"
            advice = (
                "Let it leave the block, or catch it around a 'with "
                "session.begin_nested():'."
            )
        else:
            continue
        raise PendingRollbackError(
            "The database has given this transaction up, as a statement in it has "
            f"failed, and {consequence}. The failure was caught in the block: "
            f"{failure.told}. {advice}"
        )


def _undoes_at_timeout(connection: Connection) -> bool:
    # Not by @@, which is an error where there is no such variable.
    option = "SHOW GLOBAL VARIABLES LIKE 'innodb_rollback_on_timeout'"
    row = connection.exec_driver_sql(option).first()
    return row is not None and row[1] == "ON"


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
