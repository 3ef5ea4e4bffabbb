"""Whether statements are committed by themselves: that is for the driver to say.

SQLAlchemy knows only of what it has set itself, and a driver can be told by
connect_args, by a creator or by a listener, too.
"""

from contextlib import suppress
from typing import Any

from sqlalchemy import Connection

from ._sqlite import begins_nothing, has_begun_on_sqlite


def commits_each(connection: Connection) -> bool:
    """Tell whether the next statement is committed by itself.

    It is not where a statement has begun a transaction, such as a listener's.
    """
    if connection.dialect.name == "sqlite":
        return has_begun_on_sqlite(connection) is False and begins_nothing(connection)
    if connection._is_autocommit_isolation() or _is_told_to(connection):
        return not _is_in_transaction(connection.connection.driver_connection)
    return False


def _is_told_to(connection: Connection) -> bool:
    pooled: Any = connection.connection
    # MySQL's drivers have a method that sets it by the name of the others' attribute,
    # and SQLAlchemy's adapter of asyncmy tells it from 2.1 on.
    with suppress(AttributeError):
        return bool(pooled.driver_connection.get_autocommit())
    return getattr(pooled.dbapi_connection, "autocommit", False) is True


def _is_in_transaction(driver: Any) -> bool:
    with suppress(AttributeError):  # psycopg, psycopg2
        return bool(driver.info.transaction_status)
    with suppress(AttributeError):  # asyncpg
        return bool(driver.is_in_transaction())
    # PyMySQL, asyncmy, aiomysql
    return bool(getattr(driver, "server_status", 0) & 1)
