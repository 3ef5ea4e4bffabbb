"""What an attempt has committed, which would be done twice by another."""

import traceback
from typing import Any

from sqlalchemy import Connection, NestedTransaction, event
from sqlalchemy.orm import Session, SessionTransaction

from ._autocommit import commits_each
from ._begun import begun_by, is_lent
from ._finish import FAILED_COMMITS
from ._sqlite import begin_sqlite

# Where SQLAlchemy has the driver commit, after its listeners were told.
_COMMITTING = {"_commit_impl", "_commit_twophase_impl"}


class Commits:
    """The commits of one attempt, by whichever of its sessions and connections."""

    def __init__(self) -> None:
        # Each connection as often as it was to commit.
        self._sent: list[Connection] = []
        self._stands = False
        # Of exits that another exception has left.
        self.failed: list[Exception] = []

    def watch(self, session: Session) -> None:
        """Be told of what the session commits, and of what its exit fails to commit."""
        session.info[FAILED_COMMITS] = self.failed
        event.listen(session, "after_begin", self._after_begin)
        event.listen(session, "after_commit", self._after_commit)

    def any_stands(self, error: BaseException) -> bool:
        """Tell whether anything was committed in an attempt that has raised that."""
        sent = list(self._sent)
        if (refused := _failed_to_commit(error)) in sent:
            sent.remove(refused)
        return self._stands or bool(sent)

    def _after_begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        if commits_each(connection):
            self._stands = True
        elif not is_lent(session, connection):
            # By two events, and not by after_commit alone: a session may have several
            # connections, and each of them a commit() that can be called.
            event.listen(connection, "commit", self._commit)
            event.listen(connection, "commit_twophase", self._commit)
            # Or else its RELEASE would be a COMMIT that nothing tells of.
            event.listen(connection, "savepoint", _begin_sqlite)
        elif not isinstance(begun_by(session)[connection], NestedTransaction):
            # What its owner had done before was rolled back with the attempt.
            self._stands = True

    def _commit(self, connection: Connection, *of_two_phases: Any) -> None:
        self._sent.append(connection)

    def _after_commit(self, session: Session) -> None:
        # A savepoint that is released is told by the same event. What joins another
        # transaction by a savepoint commits by nothing else.
        if not session.in_nested_transaction():
            self._stands = True


def _begin_sqlite(connection: Connection, name: object) -> None:
    begin_sqlite(connection)


def _failed_to_commit(error: BaseException) -> Any:
    """Return the connection whose very COMMIT has raised the error, if one has."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name in _COMMITTING:
            return frame.f_locals["self"]
    return None


def may_join(session: Session) -> bool:
    """Tell whether the session is to join what may be somebody else's transaction."""
    mode = session.join_transaction_mode
    if mode == "create_savepoint":
        return False
    # Those of classes and tables, which are private in SQLAlchemy before 2.1.
    known = vars(session)
    binds: dict[Any, Any] = known.get("_Session__binds") or known.get("binds", {})
    return any(
        isinstance(bind, Connection)
        and not (mode == "conditional_savepoint" and bind.in_nested_transaction())
        for bind in (session.bind, *binds.values())
    )
