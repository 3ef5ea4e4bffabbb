"""The attempts at one unit of work: which may follow, and why there was another."""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session
from stamina import AsyncRetryingCaller, RetryingCaller

from ._binds import describe
from ._codes import is_retryable
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


class Attempts:
    """The attempts at one unit of work."""

    def __init__(self, work: str, limits: Limits) -> None:
        self._work = work
        self._limits = limits
        self._failures: list[Exception] = []
        self._committed = False

    def watch(self, session: Session) -> None:
        """Be told when an attempt commits, which is to be the last one then."""
        event.listen(session, "after_commit", self._after_commit)

    def run(self, attempt: Callable[[], R]) -> R:
        """Call it until it succeeds, or is not to be called again."""
        with self._telling():
            return RetryingCaller(*self._backoff)(self._may_follow, attempt)

    async def async_run(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """The same for a coroutine function."""
        with self._telling():
            return await AsyncRetryingCaller(*self._backoff)(self._may_follow, attempt)

    def may_follow(self, error: BaseException) -> bool:
        """Tell whether there may be an attempt after one that has raised that."""
        # What was committed before it failed would be done twice.
        if self._committed:
            return False
        unknown = self._limits.idempotent and isinstance(error, OutcomeUnknown)
        return unknown or is_retryable(error)

    @property
    def _backoff(self) -> tuple[int | None, float | None, float, float, float]:
        attempts, timeout, _ = self._limits
        return attempts, timeout, _WAIT_INITIAL, _WAIT_MAX, _WAIT_JITTER

    def _after_commit(self, session: Session) -> None:
        # A savepoint that is released is told by the same event.
        if not session.in_nested_transaction():
            self._committed = True

    def _may_follow(self, error: Exception) -> bool:
        if not self.may_follow(error):
            return False
        self._failures.append(error)
        logger.warning("safesession: %s", self._told(len(self._failures), error))
        return True

    @contextmanager
    def _telling(self) -> Generator[None, None, None]:
        """Attach to what is raised the failures of the attempts before."""
        try:
            yield
        except Exception as error:
            for number, failure in enumerate(self._failures, 1):
                if failure is not error:
                    attach(error, f"safesession: {self._told(number, failure)}")
            raise

    def _told(self, number: int, failure: Exception) -> str:
        told = describe_error(failure)
        return f"attempt {number} of {self._work} failed: {told}"


def scopes(
    call: str,
    scope: Callable[..., R],
    refused: tuple[type, ...],
    bind: object,
    options: Mapping[str, Any],
) -> Callable[[], R]:
    """Return what makes the scopes of the attempts; refuse wrong arguments."""
    if isinstance(bind, refused):
        raise InvalidArgument(
            f"{call}() got {describe(bind)} as its bind, and a transaction that was "
            "begun by somebody else cannot be run again. Pass the engine or the "
            "sessionmaker, and call it where there is no transaction yet."
        )
    make_scope = partial(scope, bind, **options)
    make_scope()
    return make_scope
