"""Leaving a scope from asyncio: the exit runs to its end, whoever cancels the task."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from sqlalchemy.orm import Session, SessionTransaction

from ._finish import finish, needs_io, set_context
from ._outcome import Outcome

Run = Callable[
    [Callable[[], BaseException | None]], Coroutine[Any, Any, BaseException | None]
]


async def leave(
    session: Session,
    savepoint: SessionTransaction | None,
    outcome: Outcome,
    error: BaseException | None,
    run: Run,
) -> BaseException | None:
    """Finish the session: here where nothing waits for a database, else by `run`.

    Return the exception to raise in place of `error`, as `finish` does; a
    cancellation that arrived meanwhile is one.
    """
    work = partial(finish, session, savepoint, outcome, error)
    if savepoint is None and not needs_io(session, outcome):
        return work()
    failure, cancellation = await _run_to_end(run(work))
    if cancellation is None:
        return failure
    set_context(cancellation, error if failure is None else failure)
    return cancellation


async def _run_to_end(
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
