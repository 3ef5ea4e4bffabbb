"""Carry the decision out on a session: commit, rollback, close, invalidate."""

from collections.abc import Callable
from functools import partial
from typing import cast

from sqlalchemy import Connection, NestedTransaction, TwoPhaseTransaction
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

from ._aborted import require_alive
from ._begun import begun_by
from ._lost import outcome_unknown, was_lost_in_commit
from ._outcome import Outcome
from ._read_only import allow_writes, awaits_undoing, is_read_only
from ._report import report

# Where in the `info` of a session is a list, if somebody may run its work again.
FAILED_COMMITS = "safesession.failed_commits"


def finish(
    session: Session,
    savepoint: SessionTransaction | None,
    outcome: Outcome,
    error: BaseException | None,
) -> BaseException | None:
    """End the savepoint, or end the transaction of the session and close it.

    Return the exception to raise in place of `error`, or ``None`` where `error` (or
    nothing) is to leave. It is returned and not raised so that it crosses greenlets,
    tasks and threads as it is.
    """
    cleanup = _Cleanup(error)
    try:
        _take_steps(session, savepoint, outcome, cleanup)
    except BaseException as interrupt:
        # A KeyboardInterrupt between two steps; those that are left are taken now.
        cleanup.take("exit", interrupt)
        _take_steps(session, savepoint, "rollback", cleanup)
    return None if cleanup.leaving is error else cleanup.leaving


def _take_steps(
    session: Session,
    savepoint: SessionTransaction | None,
    outcome: Outcome,
    cleanup: "_Cleanup",
) -> None:
    if outcome == "check":
        cleanup.attempt("commit", session.flush)
    if outcome != "commit" and is_read_only(session):
        cleanup.attempt("rollback", partial(allow_writes, session, savepoint))
    unit: _Root | _Savepoint | None = None
    if savepoint is None:
        if session.in_transaction():
            unit = _Root(session)
    elif _is_open(session, savepoint):
        unit = _Savepoint(session, savepoint)
    if unit is not None:
        committed = outcome == "commit" and cleanup.attempt("commit", unit.commit)
        if not committed and not (
            cleanup.attempt("rollback", unit.rollback)
            and cleanup.attempt("close", unit.release)
        ):
            cleanup.attempt("invalidate", unit.invalidate)
    if savepoint is None and not cleanup.attempt("close", session.close):
        cleanup.attempt("invalidate", session.invalidate)


def _is_open(session: Session, savepoint: SessionTransaction) -> bool:
    nested = session.get_nested_transaction()
    while nested is not None and nested is not savepoint:
        nested = nested.parent
    return nested is not None


def raise_in_place(failure: BaseException | None) -> None:
    """Raise what `finish` returned, if anything, with the context it has."""
    if failure is None:
        return
    context = BaseException.__getattribute__(failure, "__context__")
    try:
        raise failure
    finally:
        # The raise has made the exception being handled its context.
        set_context(failure, context)


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Set `__context__`, also of an exception that refuses attributes."""
    BaseException.__setattr__(error, "__context__", context)


def needs_io(session: Session, outcome: Outcome) -> bool:
    """Tell whether `finish` may talk to a database."""
    if not session.in_transaction():
        return is_read_only(session) and awaits_undoing(session)
    # A "check" flushes, and a hook may read then.
    return outcome != "rollback" or bool(begun_by(session))


class _Cleanup:
    """The steps of one exit, and the exception that leaves the scope after them."""

    __slots__ = ("leaving",)

    def __init__(self, error: BaseException | None) -> None:
        self.leaving = error

    def attempt(self, step: str, action: Callable[[], None]) -> bool:
        """Run one step; return whether it succeeded."""
        try:
            action()
        except BaseException as failure:
            self.take(step, failure)
            return False
        return True

    def take(self, step: str, failure: BaseException) -> None:
        leaving = self.leaving
        if failure is leaving:
            return
        if not issubclass(type(failure), Exception):
            # A KeyboardInterrupt, a SystemExit, a cancellation: not to be held back.
            if leaving is not None:
                set_context(failure, leaving)
            self.leaving = failure
        elif step in ("commit", "exit") and leaving is None:
            self.leaving = failure
        elif step != "report":
            telling = partial(report, step, cast(Exception, failure), leaving)
            self.attempt("report", telling)


class _Root:
    """The transaction of a session, with whatever savepoints are open in it."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def commit(self) -> None:
        require_alive(self._session)
        try:
            self._session.commit()
        except DBAPIError as error:
            failure = outcome_unknown(error) if was_lost_in_commit(error) else error
            # It may not be what leaves.
            self._session.info.get(FAILED_COMMITS, []).append(failure)
            if failure is error:
                raise
            raise failure from error

    def invalidate(self) -> None:
        self._session.invalidate()

    def rollback(self) -> None:
        session = self._session
        while (nested := session.get_nested_transaction()) is not None:
            nested.rollback()
        # Session.rollback() hands the connection back to the pool whether or not the
        # ROLLBACK worked, and sends none after a failed COMMIT. So the driver is asked
        # first, while the connection can still be invalidated.
        for connection, begun in begun_by(session).items():
            # A savepoint was joined to a transaction that is for its owner to end.
            joined = isinstance(begun, NestedTransaction)
            if joined or connection.invalidated or connection.closed:
                continue
            if isinstance(begun, TwoPhaseTransaction):
                # It has a ROLLBACK of its own. After a COMMIT that failed there is
                # none, and psycopg lets nobody use the connection for anything else.
                if not begun.is_active:
                    connection.invalidate()
                continue
            pooled = connection.connection
            # It is not where SQLAlchemy was interrupted while it invalidated it.
            if pooled.is_valid:
                connection.dialect.do_rollback(pooled)

    def release(self) -> None:
        # An event hook may have failed after the COMMIT, or a flush was rolled back
        # when it failed: then closing is all that is left.
        if self._session.is_active:
            self._session.rollback()


class _Savepoint:
    """A savepoint in a session that stays open."""

    __slots__ = ("_savepoint", "_session")

    def __init__(self, session: Session, savepoint: SessionTransaction) -> None:
        self._session = session
        self._savepoint = savepoint

    def commit(self) -> None:
        self._savepoint.commit()

    def rollback(self) -> None:
        # SQLAlchemy sends no ROLLBACK TO after a RELEASE that failed.
        lost = any(map(_failed_to_release, begun_by(self._session)))
        if self._savepoint.is_active:
            self._savepoint.rollback()
        else:
            self._savepoint.close()
        if lost:
            self.invalidate()

    def release(self) -> None:
        """Keep the connection, which is the outer transaction's."""

    def invalidate(self) -> None:
        """Leave nothing of the savepoint for the outer transaction to commit."""
        for connection in begun_by(self._session):
            connection.invalidate()


def _failed_to_release(connection: Connection) -> bool:
    nested = connection.get_nested_transaction()
    return nested is not None and not nested.is_active
