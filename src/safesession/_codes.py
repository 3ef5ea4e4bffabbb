"""What databases say when a transaction is to be run again."""

import errno
import socket

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ._lost import gave_way_in_commit, was_connecting, was_lost_in_commit
from .errors import OutcomeUnknown

# Of the SQL standard, of PostgreSQL (Appendix A of its documentation), CockroachDB and
# YugabyteDB, and of drivers of others that tell them.
_SQLSTATES = {
    "40001",  # serialization_failure, in CockroachDB "restart transaction"
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
    "08000",  # connection_exception
    "08001",  # sqlclient_unable_to_establish_sqlconnection
    "08003",  # connection_does_not_exist
    "08004",  # sqlserver_rejected_establishment_of_sqlconnection
    "08006",  # connection_failure
    "53300",  # too_many_connections
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
}
# Of MySQL and MariaDB, and of Galera, which tells a conflict as a deadlock.
_MYSQL_CODES = {
    1020,  # ER_CHECKREAD: the row has changed, under MariaDB's snapshot isolation
    1040,  # ER_CON_COUNT_ERROR
    1047,  # ER_UNKNOWN_COM_ERROR: the Galera node is not ready
    1053,  # ER_SERVER_SHUTDOWN
    1205,  # ER_LOCK_WAIT_TIMEOUT
    1213,  # ER_LOCK_DEADLOCK
    1927,  # ER_CONNECTION_KILLED
    2002,  # CR_CONNECTION_ERROR
    2003,  # CR_CONN_HOST_ERROR
    2006,  # CR_SERVER_GONE_ERROR
    2013,  # CR_SERVER_LOST
    3101,  # ER_TRANSACTION_ROLLBACK_DURING_COMMIT, of group replication
}
_MYSQL_DRIVERS = {"MySQLdb", "aiomysql", "asyncmy", "mariadb", "mysql", "pymysql"}
# The primary codes; an extended one has more in its higher bytes.
_SQLITE_CODES = {
    5,  # SQLITE_BUSY
    6,  # SQLITE_LOCKED
}
# Where there is no code: nobody answers, or the way to them is not there.
_ERRNOS = {
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOENT,
}
# And what libpq or asyncpg say of who has answered, and will say again.
_REFUSALS = (
    "authentication failed",
    "certificate",
    "does not exist",
    "does not support SSL",
    "is not permitted to log in",
    "no password supplied",
    "no pg_hba.conf entry",
    "permission denied",
    "rejected SSL upgrade",
)


def is_retryable(error: BaseException) -> bool:
    """Tell whether the work that raised `error` may succeed when it is run again.

    That is: the database has refused the transaction for what others did at the same
    time (a serialization failure, a deadlock, a conflict in a Galera cluster, a lock),
    or the connection was lost or could not be opened. It is told by the SQLSTATE or the
    vendor's code on the driver's exception. That of PostgreSQL, MySQL, MariaDB, Galera,
    SQLite, CockroachDB and YugabyteDB is known. A database that has answered that the
    password, the database or the like is wrong will answer so again: that is not
    retryable.

    A connection that was lost during COMMIT is not retryable, as the work may have been
    committed.

    Args:
        error: What left a scope or a session; or an exception of a driver's.

    .. versionadded:: 0.1
    """
    if isinstance(error, OutcomeUnknown) or not isinstance(error, Exception):
        return False
    if isinstance(error, DBAPIError):
        if was_lost_in_commit(error):
            return False
        if error.connection_invalidated:
            return True
    driver_error = getattr(error, "orig", None) or error
    if (code := _sqlite_code(driver_error)) is not None:
        return code in _SQLITE_CODES
    if (code := mysql_code(driver_error)) is not None:
        return code in _MYSQL_CODES or gave_way_in_commit(driver_error)
    if (sqlstate := sqlstate_of(driver_error)) is not None:
        return sqlstate in _SQLSTATES
    return was_connecting(error) and _nobody_answers(error, driver_error)


def _nobody_answers(error: Exception, driver_error: BaseException) -> bool:
    """Tell whether an error without a code may be another one the next time."""
    for each in (driver_error, driver_error.__cause__):
        if isinstance(each, OSError):
            return _is_of_the_way(each) and not _is_refusal(each)
        # Hosts have answered, and none of them is the one that was asked for.
        if type(each).__name__ == "TargetServerAttributeNotMatched":
            return True
    of_connections = isinstance(error, (OperationalError, InterfaceError))
    return of_connections and not _is_refusal(driver_error)


def _is_of_the_way(error: OSError) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror)):
        return True
    # A file that is not there is named, and a socket is not. The text is asyncio's,
    # which says no more where a host has several addresses.
    is_of_network = error.errno in _ERRNOS and error.filename is None
    return is_of_network or str(error).startswith("Multiple exceptions")


def _is_refusal(error: BaseException) -> bool:
    return any(refusal in str(error) for refusal in _REFUSALS)


def _sqlite_code(error: object) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def mysql_code(error: BaseException) -> int | None:
    """Return the code of MySQL or MariaDB that a driver's exception has, if any."""
    if type(error).__module__.partition(".")[0] not in _MYSQL_DRIVERS:
        return None
    code = getattr(error, "errno", None) or next(iter(error.args), None)
    return code if isinstance(code, int) else None


def sqlstate_of(error: object) -> str | None:
    """Return the SQLSTATE that a driver's exception has, if any."""
    # psycopg2 names it one way, psycopg and asyncpg another.
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None
