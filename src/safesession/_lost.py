"""A connection that is lost, or was never had: what that says of the work."""

import traceback
from typing import cast

from sqlalchemy.exc import DBAPIError

from .errors import OutcomeUnknown

# How dialects spell the COMMIT of a two-phase transaction, which is a statement there.
_COMMITS = ("COMMIT", "XA COMMIT")
# Where they send it, and something after it; and what comes before it, which commits
# nothing. With psycopg these are methods of the driver's, too.
_TWO_PHASE = {"do_prepare_twophase": False, "do_commit_twophase": True}
# What a server says itself: transaction_resolution_unknown of PostgreSQL, and
# statement_completion_unknown, which is CockroachDB's.
_UNKNOWN = ("08007", "40003")
# Of MySQL and MariaDB: a Galera node says so that has lost the others meanwhile.
_ERROR_DURING_COMMIT = 1180
# The number in its text of HA_ERR_LOCK_DEADLOCK. MySQL's InnoDB returns it to COMMIT
# where a transaction of a higher priority has ended this one, as in group replication;
# and it has rolled back before.
_LOCK_DEADLOCK = "149"


def was_lost_in_commit(error: DBAPIError) -> bool:
    """Tell whether COMMIT was sent, and nothing came that says what became of it."""
    if was_connecting(error):
        return False
    is_lost = error.connection_invalidated or _says_unknown(error.orig)
    return is_lost and _was_committing(error)


def _says_unknown(driver_error: BaseException | None) -> bool:
    if getattr(driver_error, "sqlstate", None) in _UNKNOWN:
        return True
    return _failed_in_commit(driver_error) and not gave_way_in_commit(driver_error)


def gave_way_in_commit(driver_error: BaseException | None) -> bool:
    """Tell whether MySQL has rolled back in COMMIT, for what others did."""
    if not _failed_in_commit(driver_error):
        return False
    return _LOCK_DEADLOCK in str(driver_error).split()


def _failed_in_commit(driver_error: BaseException | None) -> bool:
    return getattr(driver_error, "args", ())[:1] == (_ERROR_DURING_COMMIT,)


def _was_committing(error: DBAPIError) -> bool:
    # COMMIT is a method of the driver's, and no statement.
    committing = (error.statement or "COMMIT").startswith(_COMMITS)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        committing = _TWO_PHASE.get(frame.f_code.co_name, committing)
    return committing


def outcome_unknown(error: DBAPIError) -> OutcomeUnknown:
    """Return what to raise from an error that says no more than that it was lost."""
    driver_error = cast(Exception, error.orig)
    is_lost = error.connection_invalidated
    unknown = OutcomeUnknown(
        error.statement, None, driver_error, connection_invalidated=is_lost
    )
    lost = "connection was lost" if is_lost else "server has failed"
    unknown.add_detail(
        f"The {lost} during COMMIT: the work may have been committed, or not. Look for "
        "it in a new scope before you do it again."
    )
    # Where it was lost, a log record tells by this.
    return unknown.with_traceback(error.__traceback__)


def was_connecting(error: Exception) -> bool:
    """Tell whether the error is one of opening a connection."""
    if isinstance(error, DBAPIError) and error.statement is not None:
        return False
    # Drivers name a failure to connect in their own ways, asyncpg by a bare OSError;
    # but all of them raise it from the pool.
    return any(
        frame.f_globals.get("__name__", "").startswith("sqlalchemy.pool.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
