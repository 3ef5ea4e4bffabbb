"""Leaving a session that threads take turns with: the exit in a thread of its own."""

from asyncio import CancelledError

from ._cleanup import INTERRUPTS, Exit
from ._outcome import Outcome
from ._turns import guard_of
from ._workers import in_thread


class ThreadExit(Exit):
    """The exit of a session that is held in turn."""

    __slots__ = ()

    def _finish(self) -> BaseException | None:
        guard = guard_of(self._session)
        with guard.turn:
            failure = super()._finish()
            if issubclass(type(self._error), CancelledError):
                guard.ended = True
        return failure

    def _try_at_once(self, outcome: Outcome) -> None:
        turn = guard_of(self._session).turn
        if turn.acquire(blocking=False):
            try:
                super()._try_at_once(outcome)
            finally:
                turn.release()

    async def _wait_in_place(self) -> BaseException | None:
        # A call that has begun goes on in its thread, and who comes second waits for
        # it; one that has not is never begun, and the second does it.
        try:
            await self._where_it_waits()
        except INTERRUPTS as interrupt:
            return interrupt
        return None

    async def _where_it_waits(self) -> None:
        # What a KeyboardInterrupt has kept this thread from giving back.
        guard_of(self._session).give_back()
        try:
            await in_thread(self._carry_out)
        except RuntimeError:
            # No thread can be started; holding up the loop is better than a leak.
            self._carry_out()
