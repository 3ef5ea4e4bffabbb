"""`async_session_scope`."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)
from sqlalchemy.orm import SessionTransaction

from ._cleanup import Exit
from ._finish import needs_io, raise_in_place
from ._opening import Flavour, Opening, begin_savepoint
from ._outcome import CommitOn, ExceptionTypes, Outcome, decide
from ._scope import Scope, T

AS = TypeVar("AS", bound=AsyncSession)

AsyncEngineBind = (
    AsyncEngine
    | AsyncConnection
    | None
    | Callable[[], AsyncEngine | AsyncConnection | None]
)
AsyncSessionmakerBind = (
    async_sessionmaker[AS] | Callable[[], async_sessionmaker[AS] | None]
)

ASYNC = Flavour(
    engine=AsyncEngine,
    connection=AsyncConnection,
    sessionmaker=async_sessionmaker,
    session=AsyncSession,
    session_options={"close_resets_only": False, "expire_on_commit": False},
)


class async_session_scope(Scope[T]):
    """Hold an async session for one block, and end its transaction with the block.

    The counterpart of :class:`safesession.session_scope` for ``async with``: the same
    arguments, the same promises and the same exit.

    .. code-block:: python

        async with async_session_scope(async_engine) as session:
            session.add(Order(...))

    The exit runs to its end when the task is cancelled meanwhile, and the cancellation
    is raised after it.

    Args:
        bind: An async engine, an async connection, an async_sessionmaker, or a callable
            that returns one of these when the scope is entered; or an async session,
            for a SAVEPOINT. The sessions of an engine or a connection do not expire on
            commit; an async_sessionmaker's own settings stand.
        class_: The session class for an engine or a connection, such as
            ``sqlmodel.ext.asyncio.session.AsyncSession``.
            Default: :class:`sqlalchemy.ext.asyncio.AsyncSession`.
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

    Needs the extra ``safesession[asyncio]``.

    .. versionadded:: 0.1
    """

    __slots__ = ("_exit",)

    _opening = Opening("async_session_scope", ASYNC)

    @overload
    def __init__(
        self: "async_session_scope[AsyncSession]",
        bind: AsyncEngineBind,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: Literal[False] = False,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "async_session_scope[AS]",
        bind: AsyncEngineBind,
        *,
        class_: type[AS],
        commit_on: ExceptionTypes = ...,
        missing_ok: Literal[False] = False,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "async_session_scope[AS]",
        bind: AsyncSessionmakerBind[AS] | AS,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: Literal[False] = False,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "async_session_scope[AsyncSession | None]",
        bind: AsyncEngineBind,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: bool,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "async_session_scope[AS | None]",
        bind: AsyncEngineBind,
        *,
        class_: type[AS],
        commit_on: ExceptionTypes = ...,
        missing_ok: bool,
        read_only: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: "async_session_scope[AS | None]",
        bind: AsyncSessionmakerBind[AS] | AS,
        *,
        commit_on: ExceptionTypes = ...,
        missing_ok: bool,
        read_only: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        bind: Any,
        *,
        class_: type[AsyncSession] | None = None,
        commit_on: ExceptionTypes = (),
        missing_ok: bool = False,
        read_only: bool = False,
    ) -> None:
        self._prepare(bind, class_, commit_on, missing_ok, read_only)
        self._exit: AsyncExit | None = None

    async def __aenter__(self) -> T:
        if self._enter():
            self._savepoint = await self._session.run_sync(
                begin_savepoint, self._read_only
            )
            self._phase = "entered"
        return self._session  # type: ignore[no-any-return]

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            outcome = decide(error, self._commit_on)
            if self._has_to_wait(outcome):
                await self._wait_for_exit(error)
            else:
                raise_in_place(self._end(outcome, error))
        except BaseException as raised:
            if self._holds_session():
                await self._wait_for_exit(raised)
            raise

    def _holds_session(self) -> bool:
        return self._phase == "entered" and self._session is not None

    def _has_to_wait(self, outcome: Outcome) -> bool:
        return self._holds_session() and needs_io(self._session.sync_session, outcome)

    async def _wait_for_exit(self, error: BaseException | None) -> None:
        if self._exit is None:
            self._exit = AsyncExit(self._session, self._commit_on, self._savepoint)
        await self._exit.leave(error)
        self._session = None
        self._phase = "left"


class AsyncExit(Exit):
    """The exit of an async session."""

    __slots__ = ("_async_session",)

    def __init__(
        self,
        session: AsyncSession,
        commit_on: CommitOn,
        savepoint: SessionTransaction | None = None,
    ) -> None:
        super().__init__(session.sync_session, commit_on, savepoint)
        self._async_session = session

    async def _where_it_waits(self) -> None:
        await self._async_session.run_sync(lambda _: self._carry_out())
