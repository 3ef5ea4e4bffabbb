"""Leaving a session that threads take turns with: the exit in a thread of its own."""

import os
from asyncio import CancelledError, get_running_loop
from collections import deque
from collections.abc import Callable
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
            await _in_thread(self._carry_out)
        except RuntimeError:
            # No thread can be started; holding up the loop is better than a leak.
            self._carry_out()


async def _in_thread(function: Callable[[], None]) -> None:
    """Call the function in a thread, without waiting for any other that was called.

    The threads are our own, as the requests that wait for this session's connection may
    hold every one that there is for endpoints, or in the loop's own executor.
    """
    idle = _idle_threads(os.getpid())
    try:
        thread = idle.pop()
    except IndexError:
        thread = ThreadPoolExecutor(1, "safesession")

    def call() -> None:
        try:
            function()
        finally:
            idle.append(thread)

    await get_running_loop().run_in_executor(thread, copy_context().run, call)


# An executor for each, as one for all begins threads while others are idle: from Python
# 3.12 on it loses count of them. What is left out ends with its last reference, and a
# process that is forked begins with none.
@cache
def _idle_threads(process: int) -> deque[ThreadPoolExecutor]:
    return deque(maxlen=40)
