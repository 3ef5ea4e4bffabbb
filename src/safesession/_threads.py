"""Leaving a session that threads take turns with: the exit in a thread of its own."""

import os
from asyncio import CancelledError, get_running_loop
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache

from ._cleanup import INTERRUPTS, Exit
from ._outcome import Outcome
from ._turns import guard_of


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
            await get_running_loop().run_in_executor(
                _executor_of(os.getpid()), copy_context().run, self._carry_out
            )
        except RuntimeError:
            # No thread can be started; holding up the loop is better than a leak.
            self._carry_out()


# Threads of their own: the requests that wait for this session's connection may hold
# every thread that there is for endpoints, or in the loop's own executor. A process
# that is forked begins with none.
@cache
def _executor_of(process: int) -> ThreadPoolExecutor:
    # No exit waits for another's: a thread is begun where none is idle.
    return ThreadPoolExecutor(10_000, "safesession")
