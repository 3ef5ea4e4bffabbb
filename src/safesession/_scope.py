"""`session_scope`, and what it shares with `async_session_scope`."""

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

from ._finish import finish, raise_in_place
from ._opening import SYNC, Opening, begin_savepoint, sync_session_of
from ._outcome import CommitOn, ExceptionTypes, Outcome, decide, what_to_commit_on
from .errors import ScopeMisuse

T = TypeVar("T")
S = TypeVar("S", bound=Session)

EngineBind = Engine | Connection | None | Callable[[], Engine | Connection | None]
SessionmakerBind = sessionmaker[S] | Callable[[], sessionmaker[S] | None]


class Scope(Generic[T]):
    """One unit of work, whichever way its block is entered and left."""

    __slots__ = (
        "_commit_on",
        "_open",
        "_phase",
        "_read_only",
        "_savepoint",
        "_session",
    )

    # How sessions are opened without class_, missing_ok and read_only: most are.
    _opening: ClassVar[Opening]

    def _prepare(
        self,
        bind: Any,
        class_: type | None,
        commit_on: ExceptionTypes,
        missing_ok: bool,
        read_only: bool,
    ) -> None:
        opening = self._opening
        if class_ is not None or missing_ok or read_only:
            opening = replace(
                opening, class_=class_, missing_ok=missing_ok, read_only=read_only
            )
        self._session: Any
        self._open: Callable[[], Any] | None
        if isinstance(bind, opening.flavour.session):
            opening.refuse_class_beside(bind)
            self._session, self._open = bind, None
        else:
            self._session, self._open = None, opening.on(bind)
        self._commit_on: CommitOn = ()
        if commit_on != () or read_only:
            self._commit_on = what_to_commit_on(opening.call, commit_on, read_only)
        self._read_only = read_only
        self._savepoint: SessionTransaction | None = None
        self._phase = "new"

    def _enter(self) -> bool:
        """Open the session, or return True where a savepoint is to begin."""
        if self._phase != "new":
            call = self._opening.call
            raise ScopeMisuse(
                f"This {call}() was entered before, and a scope serves one block. "
                f"Call {call}() again for each 'with' block."
            )
        self._phase = "entering"
        if self._open is None:
            return True
        self._session = self._open()
        self._phase = "entered"
        return False

    def _end(
        self, outcome: Outcome, error: BaseException | None
    ) -> BaseException | None:
        if self._phase != "entered":
            raise self._not_entered()
        failure = None
        # There is none for a missing bind.
        if self._session is not None:
            session = sync_session_of(self._session)
            failure = finish(session, self._savepoint, outcome, error)
            self._session = None
        self._phase = "left"
        return failure

    def _not_entered(self) -> ScopeMisuse:
        return ScopeMisuse(
            f"This {self._opening.call}() was left without being entered, or left "
            "twice. Enter and leave it by a 'with' statement."
        )


class session_scope(Scope[T]):
    """Hold a session for one block, and end its transaction with the block.

    A block that ends normally is committed. One that raises is rolled back, and the
    very exception that was raised leaves the scope. Either way the session is closed
    and its connection is back in the pool before the next line runs.

    .. code-block:: python

        with session_scope(engine) as session:
            session.add(Order(...))

    Given a :class:`~sqlalchemy.orm.Session`, the scope is a SAVEPOINT inside it, and
    the session stays open.

    Args:
        bind: An engine, a connection, a sessionmaker, or a callable that returns one
            of these when the scope is entered; or a session, for a SAVEPOINT.
        class_: The session class for an engine or a connection, such as
            ``sqlmodel.Session``. Default: :class:`sqlalchemy.orm.Session`.
        commit_on: An exception type, or a tuple of them, after which the work is
            committed all the same, before the exception leaves. Default: none.
        missing_ok: Whether a bind that is, or returns, ``None`` gives ``None`` for a
            session, and a warning in the log. Default: ``False``.
        read_only: Whether every write is refused, and the scope ends in a rollback.
            The database refuses it on PostgreSQL, MySQL, MariaDB and SQLite. On these
            and on others, so does a guard that sees flushes, and INSERT, UPDATE, DELETE
            and DDL that are not text. Default: ``False``.

    Raises:
        InvalidArgument: An argument is of the wrong kind. Raised by the call, before
            anything is opened; for what a callable returns, on entering.
        EngineNotConfigured: On entering, if the bind is ``None``.
        ScopeMisuse: If the scope is entered twice, or left without being entered.
        sqlalchemy.exc.PendingRollbackError: On leaving a block that caught the error
            of a failed flush and ended normally: nothing of it could be committed.

    An error of the commit is raised as it is, after rollback and close.

    .. versionadded:: 0.1
    """

    __slots__ = ()

    _opening = Opening("session_scope", SYNC)

    @overload
    def __init__(
        self: "session_scope[Session]",
        bind: EngineBind,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: Literal[False] = False,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "session_scope[S]",
        bind: EngineBind,
        *,
        class_: type[S],
        commit_on: ExceptionTypes = ...,
        missing_ok: Literal[False] = False,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "session_scope[S]",
        bind: SessionmakerBind[S] | S,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: Literal[False] = False,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "session_scope[Session | None]",
        bind: EngineBind,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: bool,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "session_scope[S | None]",
        bind: EngineBind,
        *,
        class_: type[S],
        commit_on: ExceptionTypes = ...,
        missing_ok: bool,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "session_scope[S | None]",
        bind: SessionmakerBind[S] | S,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: bool,
        read_only: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        bind: Any,
        *,
        class_: type[Session] | None = None,
        commit_on: ExceptionTypes = (),
        missing_ok: bool = False,
        read_only: bool = False,
    ) -> None:
        self._prepare(bind, class_, commit_on, missing_ok, read_only)

    def __enter__(self) -> T:
        if self._enter():
            self._savepoint = begin_savepoint(self._session, self._read_only)
            self._phase = "entered"
        return self._session  # type: ignore[no-any-return]

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            failure = self._end(decide(error, self._commit_on), error)
        except BaseException as interrupt:
            # Between two steps, unless it is a ScopeMisuse: what is left is done now.
            if self._phase == "entered":
                raise_in_place(self._end("rollback", interrupt))
            raise
        if failure is not None:
            raise_in_place(failure)
