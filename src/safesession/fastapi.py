"""Sessions as FastAPI dependencies, and 503 for a database that is not there.

Needs the extra ``safesession[fastapi]``.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from ._extras import require

require("fastapi", extra="fastapi", wanted="safesession.fastapi")

from sqlalchemy.orm import Session

from ._dependency import Dependency, DependencyScope, dependency
from ._limits import Limiter, MaxConcurrency
from ._opening import SYNC, Opening
from ._outcome import ExceptionTypes
from ._scope import EngineBind, S, SessionmakerBind
from ._threads import ThreadExit
from ._turns import open_guarded
from ._unavailable import add_exception_handlers

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from ._aio import AS, AsyncEngineBind, AsyncSessionmakerBind

__all__ = [
    "add_exception_handlers",
    "async_session_dependency",
    "session_dependency",
]


@overload
def session_dependency(
    bind: EngineBind,
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: Literal[False] = False,
    read_only: bool = ...,
    scope: DependencyScope = ...,
    max_concurrency: MaxConcurrency = ...,
) -> Dependency[Session]: ...
@overload
def session_dependency(
    bind: EngineBind,
    *,
    class_: type[S],
    commit_on: ExceptionTypes = ...,
    missing_ok: Literal[False] = False,
    read_only: bool = ...,
    scope: DependencyScope = ...,
    max_concurrency: MaxConcurrency = ...,
) -> Dependency[S]: ...
@overload
def session_dependency(
    bind: SessionmakerBind[S],
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: Literal[False] = False,
    read_only: bool = ...,
    scope: DependencyScope = ...,
    max_concurrency: MaxConcurrency = ...,
) -> Dependency[S]: ...
@overload
def session_dependency(
    bind: EngineBind,
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: bool,
    read_only: bool = ...,
    scope: DependencyScope = ...,
    max_concurrency: MaxConcurrency = ...,
) -> Dependency[Session | None]: ...
@overload
def session_dependency(
    bind: EngineBind,
    *,
    class_: type[S],
    commit_on: ExceptionTypes = ...,
    missing_ok: bool,
    read_only: bool = ...,
    scope: DependencyScope = ...,
    max_concurrency: MaxConcurrency = ...,
) -> Dependency[S | None]: ...
@overload
def session_dependency(
    bind: SessionmakerBind[S],
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: bool,
    read_only: bool = ...,
    scope: DependencyScope = ...,
    max_concurrency: MaxConcurrency = ...,
) -> Dependency[S | None]: ...
def session_dependency(
    bind: Any,
    *,
    class_: type[Session] | None = None,
    commit_on: ExceptionTypes = (),
    missing_ok: bool = False,
    read_only: bool = False,
    scope: DependencyScope = "function",
    max_concurrency: MaxConcurrency = "pool",
) -> Dependency[Any]:
    """Return a ``get_session`` for ``Depends``: one session for each request.

    The transaction ends before the first byte of the response is sent, whatever the
    endpoint says in its ``Depends``, so an error of the commit reaches the exception
    handlers of the app. An exception from the endpoint rolls back and arrives at the
    handlers as it was raised: an ``HTTPException(400)`` is a 400.

    .. code-block:: python

        get_session = session_dependency(engine)
        SessionDep = Annotated[Session, Depends(get_session)]

    Args:
        bind: An engine, a connection, a sessionmaker, or a callable that returns one
            of these when a request asks for its session.
        class_: The session class for an engine or a connection, such as
            ``sqlmodel.Session``. Default: :class:`sqlalchemy.orm.Session`.
        commit_on: An exception type, or a tuple of them, after which the work is
            committed all the same, before the exception reaches the app.
            Default: none.
        missing_ok: Whether a bind that is, or returns, ``None`` gives ``None`` for a
            session, and a warning in the log. Default: ``False``.
        read_only: Whether every write is refused, and the scope ends in a rollback.
            The database refuses it on PostgreSQL, MySQL, MariaDB and SQLite. On these
            and on others, so does a guard that sees flushes, and INSERT, UPDATE, DELETE
            and DDL that are not text. Default: ``False``.
        scope: ``"function"`` ends the transaction before the response is sent.
            ``"request"`` ends it afterwards, for a session that is used while the
            response is streamed. Default: ``"function"``.
        max_concurrency: How many sessions may be out at once, on the engine and in the
            event loop, before further requests wait for theirs: a number, for this
            dependency alone; ``None`` for no limit; ``"pool"`` for as many as the pool
            of the engine can give. A WebSocket does not wait, and is not counted.
            Default: ``"pool"``.

    Raises:
        InvalidArgument: An argument is of the wrong kind, or the engine is an
            in-memory SQLite one whose pool gives each thread its own database.

    A request raises EngineNotConfigured if the bind is ``None``.

    .. versionadded:: 0.1
    """
    opening = Opening("session_dependency", SYNC, class_, missing_ok, read_only, True)
    open_session = partial(open_guarded, opening.on(bind))
    limiter = Limiter(opening.call, bind, max_concurrency)
    return dependency(opening, open_session, limiter, commit_on, scope, ThreadExit)


@overload
def async_session_dependency(
    bind: "AsyncEngineBind",
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: Literal[False] = False,
    read_only: bool = ...,
    scope: DependencyScope = ...,
) -> "Dependency[AsyncSession]": ...
@overload
def async_session_dependency(
    bind: "AsyncEngineBind",
    *,
    class_: "type[AS]",
    commit_on: ExceptionTypes = ...,
    missing_ok: Literal[False] = False,
    read_only: bool = ...,
    scope: DependencyScope = ...,
) -> "Dependency[AS]": ...
@overload
def async_session_dependency(
    bind: "AsyncSessionmakerBind[AS]",
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: Literal[False] = False,
    read_only: bool = ...,
    scope: DependencyScope = ...,
) -> "Dependency[AS]": ...
@overload
def async_session_dependency(
    bind: "AsyncEngineBind",
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: bool,
    read_only: bool = ...,
    scope: DependencyScope = ...,
) -> "Dependency[AsyncSession | None]": ...
@overload
def async_session_dependency(
    bind: "AsyncEngineBind",
    *,
    class_: "type[AS]",
    commit_on: ExceptionTypes = ...,
    missing_ok: bool,
    read_only: bool = ...,
    scope: DependencyScope = ...,
) -> "Dependency[AS | None]": ...
@overload
def async_session_dependency(
    bind: "AsyncSessionmakerBind[AS]",
    *,
    commit_on: ExceptionTypes = ...,
    missing_ok: bool,
    read_only: bool = ...,
    scope: DependencyScope = ...,
) -> "Dependency[AS | None]": ...
def async_session_dependency(
    bind: Any,
    *,
    class_: "type[AsyncSession] | None" = None,
    commit_on: ExceptionTypes = (),
    missing_ok: bool = False,
    read_only: bool = False,
    scope: DependencyScope = "function",
) -> Dependency[Any]:
    """Return a ``get_session`` for ``Depends``: one async session for each request.

    The counterpart of :func:`session_dependency` for async engines: the same
    arguments, the same promises and the same exit. The sessions of an engine or a
    connection do not expire on commit.

    .. code-block:: python

        get_session = async_session_dependency(async_engine)
        SessionDep = Annotated[AsyncSession, Depends(get_session)]

    Args:
        bind: An async engine, an async connection, an async_sessionmaker, or a callable
            that returns one of these when a request asks for its session.
        class_: The session class for an engine or a connection.
            Default: :class:`sqlalchemy.ext.asyncio.AsyncSession`.
        commit_on: An exception type, or a tuple of them, after which the work is
            committed all the same, before the exception reaches the app.
            Default: none.
        missing_ok: Whether a bind that is, or returns, ``None`` gives ``None`` for a
            session, and a warning in the log. Default: ``False``.
        read_only: Whether every write is refused, and the scope ends in a rollback.
            The database refuses it on PostgreSQL, MySQL, MariaDB and SQLite. On these
            and on others, so does a guard that sees flushes, and INSERT, UPDATE, DELETE
            and DDL that are not text. Default: ``False``.
        scope: ``"function"`` ends the transaction before the response is sent,
            ``"request"`` afterwards. Default: ``"function"``.

    Raises:
        InvalidArgument: An argument is of the wrong kind.
        MissingExtra: ``safesession[asyncio]`` is not installed.

    A request raises EngineNotConfigured if the bind is ``None``.

    .. versionadded:: 0.1
    """
    require("greenlet", extra="asyncio", wanted="async_session_dependency")
    from ._aio import ASYNC, AsyncExit

    opening = Opening("async_session_dependency", ASYNC, class_, missing_ok, read_only)
    # Who waits for a connection waits on the loop as it is.
    limiter = Limiter(opening.call, bind, max_concurrency=None)
    return dependency(opening, opening.on(bind), limiter, commit_on, scope, AsyncExit)
