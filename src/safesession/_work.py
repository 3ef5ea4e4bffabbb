"""A function of a session becomes work that is run again, or a clear error."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial, wraps
from typing import Any, TypedDict

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from ._attempts import Attempts, Limits, limits_of
from ._binds import describe, suspends
from ._commits import may_join
from ._extras import require
from ._outcome import ExceptionTypes
from ._scope import session_scope
from .errors import InvalidArgument

_ANYTHING = inspect.Parameter("arguments", inspect.Parameter.VAR_POSITIONAL)
# annotationlib.Format.FORWARDREF: an annotation may name what is not defined yet.
_FORMAT: dict[str, Any] = {} if sys.version_info < (3, 14) else {"annotation_format": 3}


class Options(TypedDict, total=False):
    """The keywords of each of the calls, but for ``class_``."""

    commit_on: ExceptionTypes
    read_only: bool
    attempts: int | None
    timeout: float | None
    idempotent: bool


class Work:
    """How `call` was asked to run functions: on which bind, and within which limits."""

    def __init__(
        self,
        call: str,
        scope: Any,
        joining: tuple[type, ...],
        bind: Any,
        limits: Limits,
        options: dict[str, Any],
    ) -> None:
        self._call = call
        self._bind = bind
        self._limits = limits_of(call, *limits)
        if isinstance(bind, joining):
            raise self._joins("")
        self._make_scope = partial(_scope_of(call, scope), bind, **options)
        # What can be refused without calling anything is refused now.
        self._make_scope()

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the function with a session, and again where it is refused."""
        attempts = self._attempts(function)

        def attempt() -> Any:
            with self._make_scope() as session:
                self._watch(attempts, session)
                returned = function(session, *args, **kwargs)
                if inspect.isawaitable(returned):
                    if inspect.iscoroutine(returned):
                        returned.close()
                    raise self._wrong_kind(function)
                return returned

        return attempts.run(attempt)

    async def async_run(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """The same for a function to await, of an async session."""
        attempts = self._attempts(function)

        async def attempt() -> Any:
            async with self._make_scope() as session:
                self._watch(attempts, session.sync_session)
                returned = function(session, *args, **kwargs)
                if not inspect.isawaitable(returned):
                    raise self._wrong_kind(function)
                return await returned

        return await attempts.async_run(attempt)

    def decorate(self, function: Callable[..., Any]) -> Any:
        """Return what gives the function its session whenever it is called."""
        self.check_sync(function)

        def in_session(*args: Any, **kwargs: Any) -> Any:
            return self.run(function, *args, **kwargs)

        return self._decorated(function, in_session)

    def async_decorate(self, function: Callable[..., Any]) -> Any:
        """The same for a coroutine function."""
        self._check_async(function)

        async def in_session(*args: Any, **kwargs: Any) -> Any:
            return await self.async_run(function, *args, **kwargs)

        return self._decorated(function, in_session)

    def check(self, function: Any) -> None:
        """Raise where it cannot be a function of a session."""
        if not callable(function):
            raise InvalidArgument(
                f"{self._call}() got {describe(function)} as its function. Pass what "
                "can be called with the session."
            )

    def check_sync(self, function: Any) -> None:
        """Raise where it cannot be a function of a sync session."""
        self.check(function)
        if suspends(inspect.unwrap(function)):
            raise InvalidArgument(
                f"{self._call}() got {describe(function)}, which is a coroutine "
                "function or a generator. A coroutine function goes with "
                f"async_{self._call}()."
            )

    def _check_async(self, function: Any) -> None:
        """Raise where it is no coroutine function, of whichever kind."""
        self.check(function)
        each = inspect.unwrap(function)
        if not any(map(inspect.iscoroutinefunction, (each, type(each).__call__))):
            raise InvalidArgument(
                f"{self._call}() got {describe(function)}, which is no coroutine "
                "function. Define it by 'async def'; a function of a sync session "
                f"goes with {self._call.removeprefix('async_')}()."
            )

    def _decorated(self, function: Any, wrapper: Any) -> Any:
        """Return the wrapper with the signature that its callers see."""
        signature = _signature_of(function)
        others = list(signature.parameters.values())
        session = others[0] if others else _ANYTHING
        if session.name in ("self", "cls"):
            raise InvalidArgument(
                f"{self._call}() got {describe(function)}, whose first argument is "
                f"{session.name}, and the session has to be. Decorate a function, and "
                "call it from the method."
            )
        if session.kind is not session.VAR_POSITIONAL:
            del others[0]
        wrapper = wraps(function)(wrapper)
        wrapper.__signature__ = signature.replace(parameters=others)
        annotated = {each.name: each.annotation for each in others}
        annotated["return"] = signature.return_annotation
        wrapper.__annotations__ = {
            name: annotation
            for name, annotation in annotated.items()
            if annotation is not signature.empty
        }
        return wrapper

    def _attempts(self, function: Any) -> Attempts:
        return Attempts(describe(function), self._limits, function)

    def _watch(self, attempts: Attempts, session: Session) -> None:
        if may_join(session):
            raise self._joins(", whose sessions join a connection")
        attempts.watch(session)

    def _joins(self, how: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self._call}() got {describe(self._bind)} as its bind{how}, and a "
            "transaction that was begun by somebody else cannot be run again. Pass "
            "the engine or the sessionmaker, and call it where there is no transaction "
            "yet."
        )

    def _wrong_kind(self, function: Any) -> InvalidArgument:
        to_await, goes_with = "nothing to await", self._call.removeprefix("async_")
        if goes_with == self._call:
            to_await, goes_with = "what is to be awaited", f"async_{self._call}"
        return InvalidArgument(
            f"{self._call}() got {describe(function)}, which returned {to_await}: its "
            f"work was rolled back. It goes with {goes_with}()."
        )


def work_of(call: str, bind: Any, limits: Limits, **options: Any) -> Work:
    """Return how to run functions of a sync session."""
    return Work(call, session_scope, (Session, Connection), bind, limits, options)


def async_work_of(call: str, bind: Any, limits: Limits, **options: Any) -> Work:
    """Return how to run functions of an async session."""
    require("greenlet", extra="asyncio", wanted=call)
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from ._aio import async_session_scope

    joining = (AsyncSession, AsyncConnection)
    return Work(call, async_session_scope, joining, bind, limits, options)


@cache
def _scope_of(call: str, scope: Any) -> Any:
    """Return the scope whose errors name the call that was made."""
    opening = replace(scope._opening, call=call, runs_again=True)
    return type(call, (scope,), {"__slots__": (), "_opening": opening})


def refuse_function(call: str, bind: Any) -> None:
    """Raise where a decorator was given, for its bind, what it is to decorate."""
    if inspect.isroutine(bind) and not _takes_nothing(bind):
        raise InvalidArgument(
            f"{call}() got {describe(bind)} as its bind, and that takes arguments. To "
            f"decorate a function, write @{call}(engine) above it."
        )


def _takes_nothing(function: Any) -> bool:
    try:
        _signature_of(function).bind()
    except TypeError:
        return False
    return True


def _signature_of(function: Any) -> inspect.Signature:
    try:
        return inspect.signature(function, **_FORMAT)
    except ValueError:
        # Some that are written in C tell nothing.
        return inspect.Signature([_ANYTHING])
