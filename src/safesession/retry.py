"""Work that is run again where the database has refused its transaction.

Needs the extra ``safesession[retry]``.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    TypeVar,
    Unpack,
    overload,
)

from ._extras import require

require("stamina", extra="retry", wanted="safesession.retry")

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ._attempts import Limits
from ._codes import is_retryable
from ._outcome import ExceptionTypes
from ._replay import RetryMiddleware
from ._scope import S, SessionmakerBind
from ._work import Options, async_work_of, refuse_function, work_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from ._aio import AS, AsyncSessionmakerBind

__all__ = [
    "RetryMiddleware",
    "async_in_session",
    "async_run_in_session",
    "in_session",
    "is_retryable",
    "run_in_session",
]

P = ParamSpec("P")
R = TypeVar("R")

# No connection: what its owner has begun on it cannot be run again.
Bind = Engine | Callable[[], Engine | None]
if TYPE_CHECKING:
    AsyncBind = AsyncEngine | Callable[[], AsyncEngine | None]


@overload
def run_in_session(
    bind: Bind, function: Callable[[Session], R], **options: Unpack[Options]
) -> R: ...
@overload
def run_in_session(
    bind: Bind,
    function: Callable[[S], R],
    *,
    class_: type[S],
    **options: Unpack[Options],
) -> R: ...
@overload
def run_in_session(
    bind: SessionmakerBind[S],
    function: Callable[[S], R],
    **options: Unpack[Options],
) -> R: ...
def run_in_session(
    bind: Any,
    function: Callable[[Any], R],
    *,
    class_: type[Session] | None = None,
    commit_on: ExceptionTypes = (),
    read_only: bool = False,
    attempts: int | None = 10,
    timeout: float | None = 30.0,
    idempotent: bool = False,
) -> R:
    """Call a function with a session, and again where its transaction is refused.

    Each attempt is a fresh session in a scope of its own; what the function returns is
    returned when it is committed. It is called again after an error that
    :func:`is_retryable` tells, wherever it arose, COMMIT included: so it is to do
    nothing outside of the session that must not be done twice. It is not called again
    once anything was committed, by itself or by a driver that is in autocommit.

    .. code-block:: python

        def transfer(session: Session) -> None:
            session.get_one(Account, 1, with_for_update=True).balance -= 5
            session.get_one(Account, 2, with_for_update=True).balance += 5

        run_in_session(engine, transfer)

    Between attempts it waits, for longer each time and with jitter, by stamina, whose
    instrumentation and testing mode apply. A warning on the logger ``safesession``
    tells each failure that may be followed by an attempt. The last error is the one
    raised, with a note for each one before it.

    Args:
        bind: An engine or a sessionmaker, or a callable that returns one.
        function: What is called with the session.
        class_: The session class for an engine. Default: `sqlalchemy.orm.Session`.
        commit_on: An exception type, or a tuple of them, after which the work is
            committed all the same, before the exception leaves. Default: none.
        read_only: Whether every write is refused. Default: ``False``.
        attempts: How many attempts there may be, ``None`` for no limit. Default: 10.
        timeout: For how many seconds from the beginning a failure may be followed by
            another attempt, which waits for up to two more, ``None`` for no limit.
            Default: 30.
        idempotent: Whether the work may be done twice, so that it is run again after
            an :class:`~safesession.OutcomeUnknown`. Default: ``False``.

    Raises:
        InvalidArgument: An argument is of the wrong kind. A session or a connection is,
            as the transaction of somebody else cannot be run again; and a function that
            returns what is to be awaited, once its work is rolled back.
        EngineNotConfigured: The bind is ``None``, or the callable returned it.

    .. versionadded:: 0.1
    """
    work = work_of(
        "run_in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )
    work.check_sync(function)
    returned: R = work.run(function)
    return returned


@overload
async def async_run_in_session(
    bind: "AsyncBind",
    function: "Callable[[AsyncSession], Awaitable[R]]",
    **options: Unpack[Options],
) -> R: ...
@overload
async def async_run_in_session(
    bind: "AsyncBind",
    function: "Callable[[AS], Awaitable[R]]",
    *,
    class_: "type[AS]",
    **options: Unpack[Options],
) -> R: ...
@overload
async def async_run_in_session(
    bind: "AsyncSessionmakerBind[AS]",
    function: "Callable[[AS], Awaitable[R]]",
    **options: Unpack[Options],
) -> R: ...
async def async_run_in_session(
    bind: Any,
    function: Callable[[Any], Awaitable[R]],
    *,
    class_: "type[AsyncSession] | None" = None,
    commit_on: ExceptionTypes = (),
    read_only: bool = False,
    attempts: int | None = 10,
    timeout: float | None = 30.0,
    idempotent: bool = False,
) -> R:
    """Await a function of an async session, and again where it is refused.

    The counterpart of :func:`run_in_session` for async engines and coroutine functions.

    Args:
        bind: An async engine or an async_sessionmaker, or a callable that returns one.
        function: What is called with the session, and awaited.
        class_: The session class for an engine.
            Default: :class:`sqlalchemy.ext.asyncio.AsyncSession`.

    The other arguments and errors are those of :func:`run_in_session`.

    Raises:
        MissingExtra: ``safesession[asyncio]`` is not installed.

    .. versionadded:: 0.1
    """
    work = async_work_of(
        "async_run_in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )
    work.check(function)
    returned: R = await work.async_run(function)
    return returned


@overload
def in_session(
    bind: Bind, **options: Unpack[Options]
) -> Callable[[Callable[Concatenate[Session, P], R]], Callable[P, R]]: ...
@overload
def in_session(
    bind: Bind, *, class_: type[S], **options: Unpack[Options]
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[P, R]]: ...
@overload
def in_session(
    bind: SessionmakerBind[S], **options: Unpack[Options]
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[P, R]]: ...
def in_session(
    bind: Any,
    *,
    class_: type[Session] | None = None,
    commit_on: ExceptionTypes = (),
    read_only: bool = False,
    attempts: int | None = 10,
    timeout: float | None = 30.0,
    idempotent: bool = False,
) -> Any:
    """Give a function its session, as :func:`run_in_session` does: a decorator.

    The session is the first argument of the function, whose callers pass the others;
    who looks at its signature, as FastAPI does, finds these alone. It is for functions:
    call one from a method that is to have a session.

    .. code-block:: python

        @in_session(engine)
        def transfer(session: Session, source: int, target: int, amount: int) -> None:
            session.get_one(Account, source, with_for_update=True).balance -= amount
            session.get_one(Account, target, with_for_update=True).balance += amount

        transfer(1, 2, amount=5)

    Args and errors are those of :func:`run_in_session`; what is of the wrong kind is
    told when the function is decorated.

    .. versionadded:: 0.1
    """
    refuse_function("in_session", bind)
    work = work_of(
        "in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )
    return work.decorate


@overload
def async_in_session(
    bind: "AsyncBind", **options: Unpack[Options]
) -> """Callable[
    [Callable[Concatenate[AsyncSession, P], Awaitable[R]]],
    Callable[P, Coroutine[Any, Any, R]],
]""": ...
@overload
def async_in_session(
    bind: "AsyncBind", *, class_: "type[AS]", **options: Unpack[Options]
) -> """Callable[
    [Callable[Concatenate[AS, P], Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]
]""": ...
@overload
def async_in_session(
    bind: "AsyncSessionmakerBind[AS]", **options: Unpack[Options]
) -> """Callable[
    [Callable[Concatenate[AS, P], Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]
]""": ...
def async_in_session(
    bind: Any,
    *,
    class_: "type[AsyncSession] | None" = None,
    commit_on: ExceptionTypes = (),
    read_only: bool = False,
    attempts: int | None = 10,
    timeout: float | None = 30.0,
    idempotent: bool = False,
) -> Any:
    """Give a coroutine function its async session: a decorator.

    The counterpart of :func:`in_session`, with the arguments and errors of
    :func:`async_run_in_session`.

    .. versionadded:: 0.1
    """
    refuse_function("async_in_session", bind)
    work = async_work_of(
        "async_in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )
    return work.async_decorate
