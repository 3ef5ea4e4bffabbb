"""The attempts at one unit of work: which may follow, and why there was another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, NamedTuple, TypeVar

import stamina
from sqlalchemy.orm import Session

from ._binds import describe
from ._codes import is_retryable
from ._commits import Commits
from ._report import attach, logger
from ._report import describe as describe_error
from .errors import InvalidArgument, OutcomeUnknown

R = TypeVar("R")

# Who waits for a row waits for milliseconds, and who waits for a failover for seconds.
_WAIT_INITIAL, _WAIT_MAX, _WAIT_JITTER = 0.02, 2.0, 0.1


class Limits(NamedTuple):
    """When there is no further attempt."""

    attempts: int | None
    timeout: float | None
    idempotent: bool


def limits_of(
    call: str, attempts: int | None, timeout: float | None, idempotent: bool
) -> Limits:
    """Return the limits that `call` was given, or raise where they are none."""
    # Not isinstance(): a bool is an int, too.
    if attempts is not None and not (type(attempts) is int and attempts > 0):
        raise InvalidArgument(
            f"{call}() got {_number(attempts)} as attempts. Pass how many attempts "
            "there may be, 1 or more; or None for no limit."
        )
    if timeout is not None and not (type(timeout) in (int, float) and timeout > 0):
        raise InvalidArgument(
            f"{call}() got {_number(timeout)} as timeout. Pass for how many seconds "
            "attempts may follow, more than 0; or None for no limit."
        )
    return Limits(attempts, timeout, idempotent)


def _number(given: object) -> str:
    return str(given) if type(given) in (int, float) else describe(given)


class Attempts:
    """The attempts at one unit of work."""

    def __init__(self, work: str, limits: Limits, function: Any) -> None:
        self._work = work
        # By whose name stamina's instrumentation tells of a retry.
        has_name = hasattr(function, "__qualname__")
        self._named: Callable[..., Any] = function if has_name else type(function)
        self._limits = limits
        self._commits = Commits()
        self._told: list[str] = []
        # The failure that was told last, until another is.
        self._last: Exception | None = None
        self._turns: AsyncIterator[stamina.Attempt]
        self._turn: stamina.Attempt

    def watch(self, session: Session) -> None:
        """Be told of what a session of the attempt commits."""
        self._commits.watch(session)

    def run(self, attempt: Callable[[], R]) -> R:
        """Call it until it succeeds, or is not to be called again."""
        with self._telling():
            return self._retrying(attempt)()

    async def async_run(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """The same for a coroutine function."""
        with self._telling():
            return await self._retrying(attempt)()

    def may_follow(self, error: BaseException) -> bool:
        """Tell whether there may be an attempt after one that has raised that."""
        failure = self._failure(error)
        # What was committed before it failed would be done twice.
        if self._commits.any_stands(failure):
            return False
        unknown = self._limits.idempotent and isinstance(failure, OutcomeUnknown)
        return unknown or is_retryable(failure)

    def _failure(self, error: BaseException) -> BaseException:
        # What leaves after a commit that failed may be what was to be committed on.
        return self._commits.failed[-1] if self._commits.failed else error

    async def begin(self) -> None:
        """Begin the first attempt, where who makes them asks for each that follows."""
        name = f"{self._named.__module__}.{self._named.__qualname__}"
        context = stamina.retry_context(**self._options()).with_name(name, (), {})
        self._turns = aiter(context)
        self._turn = await anext(self._turns)

    async def another_follows(self, error: BaseException) -> bool:
        """Wait for the time of another attempt, or tell that there is none."""
        # In a task, as the error may be just what is handled: raised here once more, it
        # would be given another context. Not create_task(), which may begin it here.
        return await asyncio.Task(self._has_next_turn(error))

    async def _has_next_turn(self, error: BaseException) -> bool:
        traceback = error.__traceback__
        # As a `with` statement does where the error leaves its block.
        self._turn.__exit__(type(error), error, traceback)
        try:
            self._turn = await anext(self._turns)
        except Exception as raised:
            if raised is error:
                return False
            raise
        finally:
            error.__traceback__ = traceback
        return True

    def _retrying(self, attempt: Callable[[], R]) -> Callable[[], R]:
        update_wrapper(attempt, self._named, ("__module__", "__qualname__"), ())
        return stamina.retry(**self._options())(attempt)

    def _options(self) -> dict[str, Any]:
        return {
            "on": self._may_follow,
            "attempts": self._limits.attempts,
            "timeout": self._limits.timeout,
            "wait_initial": _WAIT_INITIAL,
            "wait_max": _WAIT_MAX,
            "wait_jitter": _WAIT_JITTER,
        }

    def _may_follow(self, error: Exception) -> bool:
        self._last = None
        if not self.may_follow(error):
            return False
        told = describe_error(self._failure(error))
        self._last = error
        self._told.append(
            f"attempt {len(self._told) + 1} of {self._work} failed: {told}"
        )
        logger.warning("safesession: %s", self._told[-1])
        self._commits = Commits()
        return True

    @contextmanager
    def _telling(self) -> Generator[None, None, None]:
        try:
            yield
        except Exception as error:
            self.tell(error)
            raise

    def tell(self, error: Exception) -> None:
        """Attach to what is raised in the end the failures of the attempts before."""
        told = self._told[:-1] if error is self._last else self._told
        for each in told:
            attach(error, f"safesession: {each}")
