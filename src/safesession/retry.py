"""Work that is run again where the database has refused its transaction.

Needs the extra ``safesession[retry]``.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ._extras import require

require("stamina", extra="retry", wanted="safesession.retry")

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ._attempts import Attempts, Limits, scopes
from ._binds import describe, suspends
from ._codes import is_retryable
from ._outcome import ExceptionTypes
from ._replay import RetryMiddleware
from ._scope import EngineBind, S, SessionmakerBind, session_scope
from .errors import InvalidArgument

if TYPE_CHECKING:
    from ._aio import AS, AsyncEngineBind, AsyncSessionmakerBind

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


def run_in_session(
    bind: EngineBind | SessionmakerBind[S],
    function: Callable[[S], R],
    *,
    class_: type[S] | None = None,
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
    once it has called ``session.commit()`` itself.

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
        timeout: For how many seconds after the first further ones may begin, ``None``
            for no limit. Default: 30.
        idempotent: Whether the work may be done twice, so that it is run again after
            an :class:`~safesession.OutcomeUnknown`. Default: ``False``.

    Raises:
        InvalidArgument: An argument is of the wrong kind. A session or a connection is,
            as the transaction of somebody else cannot be run again.

    .. versionadded:: 0.1
    """
    decorate = _in_session(
        "run_in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )
    returned: R = decorate(function)()
    return returned


async def async_run_in_session(
    bind: "AsyncEngineBind | AsyncSessionmakerBind[AS]",
    function: "Callable[[AS], Awaitable[R]]",
    *,
    class_: "type[AS] | None" = None,
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
        commit_on: As for :func:`run_in_session`. Default: none.
        read_only: Whether every write is refused. Default: ``False``.
        attempts: How many attempts there may be, ``None`` for no limit. Default: 10.
        timeout: For how many seconds after the first further ones may begin, ``None``
            for no limit. Default: 30.
        idempotent: Whether the work may be done twice. Default: ``False``.

    Raises:
        InvalidArgument: An argument is of the wrong kind.
        MissingExtra: ``safesession[asyncio]`` is not installed.

    .. versionadded:: 0.1
    """
    decorate = _async_in_session(
        "async_run_in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )
    returned: R = await decorate(function)()
    return returned


def in_session(
    bind: EngineBind | SessionmakerBind[S],
    *,
    class_: type[S] | None = None,
    commit_on: ExceptionTypes = (),
    read_only: bool = False,
    attempts: int | None = 10,
    timeout: float | None = 30.0,
    idempotent: bool = False,
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[P, R]]:
    """Give a function its session, as :func:`run_in_session` does: a decorator.

    The session is the first argument of the function, whose callers pass the others.

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
    return _in_session(
        "in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )


def async_in_session(
    bind: "AsyncEngineBind | AsyncSessionmakerBind[AS]",
    *,
    class_: "type[AS] | None" = None,
    commit_on: ExceptionTypes = (),
    read_only: bool = False,
    attempts: int | None = 10,
    timeout: float | None = 30.0,
    idempotent: bool = False,
) -> """Callable[
    [Callable[Concatenate[AS, P], Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]
]""":
    """Give a coroutine function its async session: a decorator.

    The counterpart of :func:`in_session`, with the arguments and errors of
    :func:`async_run_in_session`.

    .. versionadded:: 0.1
    """
    return _async_in_session(
        "async_in_session",
        bind,
        Limits(attempts, timeout, idempotent),
        class_=class_,
        commit_on=commit_on,
        read_only=read_only,
    )


def _in_session(
    call: str, bind: Any, limits: Limits, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    make_scope = scopes(call, session_scope, (Session, Connection), bind, options)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if suspends(inspect.unwrap(function)):
            raise InvalidArgument(
                f"{call}() got {describe(function)}, which is a coroutine function or "
                f"a generator. A coroutine function goes with async_{call}()."
            )

        @wraps(function)
        def in_session(*args: Any, **kwargs: Any) -> Any:
            attempts = Attempts(describe(function), limits)

            def attempt() -> Any:
                with make_scope() as session:
                    attempts.watch(session)
                    return function(session, *args, **kwargs)

            return attempts.run(attempt)

        return in_session

    return decorate


def _async_in_session(
    call: str, bind: Any, limits: Limits, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    require("greenlet", extra="asyncio", wanted=call)
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from ._aio import async_session_scope

    refused = (AsyncSession, AsyncConnection)
    make_scope = scopes(call, async_session_scope, refused, bind, options)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def in_session(*args: Any, **kwargs: Any) -> Any:
            attempts = Attempts(describe(function), limits)

            async def attempt() -> Any:
                async with make_scope() as session:
                    attempts.watch(session.sync_session)
                    return await function(session, *args, **kwargs)

            return await attempts.async_run(attempt)

        return in_session

    return decorate
