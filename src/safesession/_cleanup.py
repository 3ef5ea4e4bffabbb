"""Leaving a scope from asyncio: the exit runs to its end, whoever cancels the task."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

from ._finish import set_context

# What ends a scope, and returns the exception to raise in place of the block's.
Ending = Callable[[], BaseException | None]


async def run_to_end(
    ending: Ending,
    run: Callable[[Callable[[], None]], Coroutine[Any, Any, None]],
    error: BaseException | None,
) -> BaseException | None:
    """Carry an ending out where `run` runs it, once and to its end.

    Return the exception to raise in place of `error`, as the ending does; a
    cancellation that arrived meanwhile is one.
    """
    once = _Once(ending)
    cancellation = None
    # A second turn is taken only where every task of the loop is cancelled, as when it
    # shuts down: then the ending may not have begun, or be going on in its thread.
    while not once.done:
        cancellation = await _outlast(run(once)) or cancellation
    if cancellation is None:
        return once.failure
    set_context(cancellation, error if once.failure is None else once.failure)
    return cancellation


class _Once:
    """An ending that is carried out once; whoever comes second waits for it."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._lock = Lock()
        self.done = False
        self.failure: BaseException | None = None

    def __call__(self) -> None:
        with self._lock:
            if not self.done:
                self.failure = self._ending()
                self.done = True


async def _outlast(
    cleanup: Coroutine[Any, Any, None],
) -> asyncio.CancelledError | None:
    """Wait for the cleanup, and return a cancellation that arrived meanwhile."""
    # In a task of its own, which a cancellation of this one does not reach.
    task = asyncio.create_task(cleanup)
    cancellation = await _wait(task)
    # Not every Python lets coverage see the branches taken when a task is resumed.
    if cancellation is not None:  # pragma: no branch
        with _shield():
            while not task.done():  # pragma: no branch
                cancellation = await _wait(task) or cancellation
    if not task.cancelled():  # pragma: no branch
        task.result()
    return cancellation


async def _wait(task: asyncio.Task[None]) -> asyncio.CancelledError | None:
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError as cancellation:
        return cancellation
    return None


def _shield() -> AbstractContextManager[object]:
    # A cancelled anyio scope cancels again at every await, which would keep the loop
    # busy for as long as the cleanup takes. Where nobody has imported anyio there is
    # no such scope.
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
