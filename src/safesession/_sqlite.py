"""What SQLite's driver begins, and what it leaves to others to begin."""

from typing import Any

from sqlalchemy import Connection

from .errors import InvalidArgument

# What sqlite3 has for its autocommit from Python 3.12 on, where isolation_level counts.
_LEGACY = -1


def has_begun_on_sqlite(connection: Connection) -> bool | None:
    """Tell whether SQLite is in a transaction; ``None`` if it cannot be asked."""
    driver = _driver_of(connection)
    try:
        return bool(driver.in_transaction)
    except Exception:
        # It is closed, or dead.
        return None


def begin_sqlite(connection: Connection) -> None:
    """Have SQLite begin what SQLAlchemy calls a transaction."""
    # pysqlite begins no transaction before the first write, and a SAVEPOINT outside of
    # a transaction is one itself: its RELEASE would commit.
    if connection.dialect.name != "sqlite":
        return
    # One that is dead cannot be asked: SQLAlchemy finds it out at the next statement.
    if has_begun_on_sqlite(connection) is not False:
        return
    if _ends_nothing(connection):
        raise InvalidArgument(
            "A savepoint was asked for on a connection of SQLite that has "
            "autocommit=True: there commit() and rollback() of the driver do nothing, "
            "so that what comes after it may be lost. Pass "
            "connect_args={'autocommit': False} to create_engine()."
        )
    level = _driver_of(connection).isolation_level or "DEFERRED"
    connection.exec_driver_sql(f"BEGIN {level}")


def begins_nothing(connection: Connection) -> bool:
    """Tell whether the driver begins no transaction before a write either."""
    return _driver_of(connection).isolation_level is None or _ends_nothing(connection)


def _ends_nothing(connection: Connection) -> bool:
    # With autocommit=True commit() and rollback() do nothing, also in a transaction.
    if not connection.dialect.is_async:
        driver: Any = _driver_of(connection)
        return getattr(driver, "autocommit", _LEGACY) is True
    # aiosqlite has it in a thread of its own, and tells it nowhere.
    adapted: Any = connection.connection.dbapi_connection
    return adapted.run_async(_ask_in_thread) is True


def _ask_in_thread(driver: Any) -> Any:
    return driver._execute(getattr, driver._conn, "autocommit", _LEGACY)


def _driver_of(connection: Connection) -> Any:
    return connection.connection.driver_connection
