"""Threads for what must wait neither for another call nor for a thread of others.

Those of endpoints, and the event loop's own, may all be held by requests that wait for
the very connection that is to be given back. An executor of our own would begin threads
while others are idle: from Python 3.12 on it loses count of them.
"""

import os
from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import cache
from queue import SimpleQueue
from threading import Thread

# How many stay when there is nothing to do.
MOST_IDLE = 40


class Workers:
    """Threads that are begun where none is idle, each for the next call."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], None], Callable[[], None]]] = (
            SimpleQueue()
        )
        # One for each thread that no call was put for. Nothing but its length counts,
        # and what changes that needs no lock.
        self._idle: deque[None] = deque()

    def put(self, call: Callable[[], None], tell: Callable[[], None]) -> None:
        """Have a thread call it, and then tell; neither may raise.

        Raises a RuntimeError if no thread can be started.
        """
        try:
            self._idle.pop()
        except IndexError:
            # A daemon, as one that is idle is not to keep the process from ending.
            Thread(target=self._work, name="safesession", daemon=True).start()
        self._calls.put((call, tell))

    def _work(self) -> None:
        stays = True
        while stays:
            call, tell = self._calls.get()
            call()
            # Before it is told, as the next is put for this thread then.
            stays = len(self._idle) < MOST_IDLE
            if stays:
                self._idle.append(None)
            tell()
            # Or the thread would keep the session until it has another.
            del call, tell


async def in_thread(function: Callable[[], None]) -> None:
    """Call the function in a thread; it is called whoever is cancelled meanwhile.

    Raises a RuntimeError if no thread can be started.
    """
    loop, context = get_running_loop(), copy_context()
    ended = loop.create_future()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            context.run(function)
        except BaseException as failure:
            failures.append(failure)

    def tell() -> None:
        # The loop is closed where nobody waits any more.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_end, ended)

    # A process that is forked begins with none.
    _workers_of(os.getpid()).put(call, tell)
    await ended
    if failures:
        raise failures.pop()


def _end(ended: Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


@cache
def _workers_of(process: int) -> Workers:
    return Workers()
