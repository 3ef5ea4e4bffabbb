"""Leaving a scope from asyncio: the exit runs to its end, whoever cancels the task."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ._finish import set_context

# What ends a scope, and returns the exception to raise in place of the block's.
Ending = Callable[[], BaseException | None]
# Where it may wait for a database: a greenlet or a thread.
Run = Callable[[Ending], Coroutine[Any, Any, BaseException | None]]


async def run_to_end(
    ending: Ending, run: Run, error: BaseException | None
) -> BaseException | None:
    """Have `run` carry an exit out, to its end.

    Return the exception to raise in place of `error`, as the exit does; a
    cancellation that arrived meanwhile is one.
    """
    failure, cancellation = await _outlast(run(ending))
    if cancellation is None:
        return failure
    set_context(cancellation, error if failure is None else failure)
    return cancellation


async def _outlast(
    cleanup: Coroutine[Any, Any, BaseException | None],
) -> tuple[BaseException | None, asyncio.CancelledError | None]:
    """Return what the cleanup returned, and the cancellation it outlasted."""
    # In a task of its own, which a cancellation of this one does not reach.
    task = asyncio.create_task(cleanup)
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError as error:
        cancellation = error
    else:
        return task.result(), None
    with _shield():
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancellation = error
    return task.result(), cancellation


def _shield() -> AbstractContextManager[object]:
    # A cancelled anyio scope cancels again at every await, which would keep the loop
    # busy for as long as the cleanup takes. Where nobody has imported anyio there is
    # no such scope.
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
