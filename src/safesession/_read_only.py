"""Sessions that cannot write: the database refuses it, and a guard before it.

The guard sees what goes through SQLAlchemy, on any database, and says what to do. What
it cannot see, such as an INSERT in text, is refused by the database, where it can be
told to: for one transaction, or until the connection is handed back to the pool.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn
from weakref import WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, event
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.dml import UpdateBase

from ._autocommit import commits_each
from .errors import WriteRefused


class _Way(NamedTuple):
    """How a database is told to refuse writes, and to allow them again."""

    forbidding: str
    # Nothing has to be undone where it ends with the transaction.
    undoing: str | None = None
    # Tells whether a user of the connection has forbidden it before.
    asking: str | None = None


_SQLITE = _Way("PRAGMA query_only = ON", "PRAGMA query_only = OFF", "PRAGMA query_only")
_POSTGRESQL = _Way("SET TRANSACTION READ ONLY")
# Each statement is a transaction of its own there.
_POSTGRESQL_AUTOCOMMIT = _Way(
    "SET default_transaction_read_only = on",
    "SET default_transaction_read_only = off",
    "SELECT current_setting('default_transaction_read_only') = 'on'",
)
# Not of one transaction: DDL commits it, and another one follows.
_MYSQL, _MARIADB = (
    _Way(
        "SET SESSION TRANSACTION READ ONLY",
        "SET SESSION TRANSACTION READ WRITE",
        f"SELECT @@session.{variable}",
    )
    for variable in ("transaction_read_only", "tx_read_only")
)


class _Guard:
    """Refuses the writes of one session; holds no reference to it."""

    def __init__(self, session: Session, savepoint: SessionTransaction | None) -> None:
        self.savepoint = None if savepoint is None else ref(savepoint)
        # Nothing is committed, so two phases are for nothing; and where a transaction
        # begins in two phases, MySQL and MariaDB are told too late what it is to be.
        self.two_phase = session.twophase
        self.connections: WeakSet[Connection] = WeakSet()

    def is_of(self, transaction: SessionTransaction | None) -> bool:
        mine = None if self.savepoint is None else self.savepoint()
        return transaction is mine

    def listen(self, session: Session) -> None:
        if self.savepoint is None:
            session.twophase = False
        event.listen(session, "before_flush", _refuse_flush)
        event.listen(session, "after_begin", self._after_begin)

    def _after_begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        # Within a savepoint of the scope all is forbidden already, and what is around
        # the scope's own is not to be.
        if self.is_of(transaction if transaction.nested else None):
            self.forbid(connection)

    def forbid(self, connection: Connection) -> None:
        """Have a connection refuse writes."""
        if connection not in self.connections:
            self.connections.add(connection)
            event.listen(connection, "before_execute", _refuse_statement)
            # Its own commit() and rollback() end what was forbidden in it, and the
            # session is told of nothing.
            event.listen(connection, "begin", self._forbid_in_database)
        self._forbid_in_database(connection)

    def _forbid_in_database(self, connection: Connection) -> None:
        way = _way_of(connection, self.savepoint is not None)
        if way is None:
            return
        if way.asking is not None and connection.exec_driver_sql(way.asking).scalar():
            return
        if way.undoing is not None:
            _watch_pool_of(connection)
            connection.info[_UNDOING] = way.undoing
        connection.exec_driver_sql(way.forbidding)

    def lift(self, session: Session) -> None:
        """Let the session, and what it has used and is still open, write again."""
        session.twophase = self.two_phase
        event.remove(session, "before_flush", _refuse_flush)
        event.remove(session, "after_begin", self._after_begin)
        for connection in self.connections:
            event.remove(connection, "before_execute", _refuse_statement)
            event.remove(connection, "begin", self._forbid_in_database)
            _allow(connection)


# Of the engines whose pools are watched. One that is disposed of has another pool,
# which has the listeners of the first.
_watched: WeakSet[Dialect] = WeakSet()
_guards: WeakKeyDictionary[Session, _Guard] = WeakKeyDictionary()
_UNDOING = "safesession: undoing read_only"


def forbid_writes(
    session: Session, savepoint: SessionTransaction | None = None
) -> None:
    """Have a session refuse writes, within the savepoint if there is one."""
    if session in _guards:
        return
    guard = _guards[session] = _Guard(session, savepoint)
    guard.listen(session)


def allow_writes(session: Session, savepoint: SessionTransaction | None) -> None:
    """Take back what `forbid_writes` has done for this scope, if it was for this."""
    guard = _guards.get(session)
    if guard is not None and guard.is_of(savepoint):
        del _guards[session]
        guard.lift(session)


def is_read_only(session: Session | None) -> bool:
    """Tell whether writes are forbidden in the session."""
    return bool(_guards) and session in _guards


def awaits_undoing(session: Session) -> bool:
    """Tell whether `allow_writes` has to talk to a database."""
    guard = _guards.get(session)
    return guard is not None and any(map(_is_forbidden, guard.connections))


def _way_of(connection: Connection, in_savepoint: bool) -> _Way | None:
    name = connection.dialect.name
    if name == "sqlite":
        return _SQLITE
    if name == "postgresql":
        each = commits_each(connection)
        return _POSTGRESQL_AUTOCOMMIT if each else _POSTGRESQL
    # It is not for the transaction that has begun before.
    if name in ("mysql", "mariadb") and not in_savepoint:
        dialect: Any = connection.dialect
        return _MARIADB if dialect.is_mariadb else _MYSQL
    return None


def _refuse_flush(session: Session, context: object, instances: object) -> None:
    changed = [
        *session.new,
        *session.deleted,
        *(one for one in session.dirty if session.is_modified(one)),
    ]
    if changed:
        _refuse(f"a flush of {_names(changed)}")


def _refuse_statement(
    connection: Connection, clause: Any, multiparams: Any, params: Any, options: Any
) -> None:
    if isinstance(clause, (UpdateBase, ExecutableDDLElement)):
        _refuse(clause.__visit_name__.replace("_", " ").upper())


def _refuse(what: str) -> NoReturn:
    raise WriteRefused(
        f"This session is read_only, and was asked for a write: {what}. Do it in a "
        "scope without read_only=True."
    )


def _names(objects: Sequence[object]) -> str:
    return ", ".join(sorted({type(one).__name__ for one in objects}))


def _is_forbidden(connection: Connection) -> bool:
    if connection.closed or connection.invalidated:
        return False
    return _UNDOING in connection.info


def _allow(connection: Connection) -> None:
    if not _is_forbidden(connection):
        return
    try:
        _undo(connection.connection, connection.info)
    except BaseException:
        # The next one to get it is to find it as it was.
        connection.invalidate()
        raise


def _watch_pool_of(connection: Connection) -> None:
    if connection.dialect not in _watched:
        _watched.add(connection.dialect)
        event.listen(connection.engine.pool, "reset", _allow_at_reset)


def _allow_at_reset(
    driver_connection: DBAPIConnection,
    entry: ConnectionPoolEntry | None,
    state: PoolResetState,
) -> None:
    # One that is detached is closed next, and so is one that the garbage collector has
    # found, of an async engine. SQLAlchemy invalidates the connection if this raises.
    if entry is not None and state.asyncio_safe and _UNDOING in entry.info:
        _undo(driver_connection, entry.info)


def _undo(driver_connection: Any, info: dict[Any, Any]) -> None:
    cursor = driver_connection.cursor()
    try:
        cursor.execute(info[_UNDOING])
    finally:
        cursor.close()
    del info[_UNDOING]
