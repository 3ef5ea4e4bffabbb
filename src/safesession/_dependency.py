"""The dependency that gives a request its session, whichever way it leaves it."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal, TypeAlias, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection

from ._admission import Holder
from ._cleanup import Exit
from ._limits import Limiter
from ._opening import Opening, sync_session_of
from ._outcome import CommitOn, ExceptionTypes, what_to_commit_on
from .errors import InvalidArgument, ScopeMisuse

T = TypeVar("T")

Dependency: TypeAlias = Callable[..., Coroutine[Any, Any, T]]
DependencyScope: TypeAlias = Literal["function", "request"]


def dependency(
    opening: Opening,
    open_session: Callable[[], Any],
    limiter: Limiter,
    commit_on: ExceptionTypes,
    scope: DependencyScope,
    exit_of: Callable[[Any, CommitOn], Exit],
) -> Dependency[Any]:
    """Return a ``get_session``, for a call that was asked for one."""
    call = opening.call
    if scope not in ("function", "request"):
        raise InvalidArgument(
            f"{call}() got {scope!r} as its scope. Pass 'function' to end the "
            "transaction before the response is sent, or 'request' to end it after."
        )
    commits_on = what_to_commit_on(call, commit_on, opening.read_only)

    async def session_of_request(request: HTTPConnection) -> AsyncIterator[Any]:
        # FastAPI opens a second one for an endpoint below Security(..., scopes=...).
        holder = request.scope.setdefault("safesession", Holder())
        if get_session in holder.sessions:
            yield holder.sessions[get_session]
            return
        session = holder.sessions[get_session] = open_session()
        leave = _nothing if session is None else exit_of(session, commits_on).leave
        try:
            if session is not None and holder.opened is not None:
                holder.opened(sync_session_of(session))
            # A WebSocket may stay open for days, and hold a connection for moments.
            if session is not None and request.scope["type"] == "http":
                await limiter.acquire(holder, session)
            try:
                yield session
            except BaseException as error:
                await leave(error)
                raise
            await leave(None)
        except BaseException as raised:
            if holder.opened is not None:
                holder.error = raised
            # What a KeyboardInterrupt has cut short.
            await leave(raised)
            raise
        finally:
            del holder.sessions[get_session]
            limiter.release(holder)

    of_request: Any = Depends(session_of_request, scope=scope)

    # An outer dependency that is no generator: whatever scope and cache the endpoint
    # asks of it, the inner one keeps its own.
    async def get_session(session: Any = of_request) -> Any:
        """Return the session of the request; for `Depends`."""
        if session is of_request:
            raise ScopeMisuse(
                "get_session() was called, and it is for Depends(get_session) alone. "
                f"Outside of a request use {call.replace('dependency', 'scope')}()."
            )
        return session

    return get_session


async def _nothing(error: BaseException | None) -> None:
    """Leave where there is no session."""
