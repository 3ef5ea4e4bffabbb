"""Leaving a session that threads take turns with: the exit in a thread of its own."""

from asyncio import CancelledError
from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from sqlalchemy.orm import Session

from ._cleanup import run_to_end
from ._finish import finish, needs_io, raise_in_place
from ._outcome import Outcome
from ._turns import guard_of


async def leave(
    session: Session, outcome: Outcome, error: BaseException | None
) -> None:
    """Finish the session, and raise what is to leave in place of `error`, if any."""
    guard = guard_of(session)

    def ending() -> BaseException | None:
        with guard.turn:
            failure = finish(session, None, outcome, error)
            if issubclass(type(error), CancelledError):
                guard.end()
        return failure

    with guard.if_free() as free:
        here = free and not needs_io(session, outcome)
        failure = ending() if here else None
    if not here:
        failure = await run_to_end(ending, _in_thread, error)
    raise_in_place(failure)


async def _in_thread(work: Callable[[], None]) -> None:
    # A limiter of its own: the requests that wait for this session's connection may
    # hold every slot of the default one.
    try:
        await to_thread.run_sync(work, limiter=CapacityLimiter(1))
    except RuntimeError:
        # No thread can be started; holding up the loop is better than a leak.
        work()
