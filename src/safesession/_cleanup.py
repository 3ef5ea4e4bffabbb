"""Leaving a scope from asyncio: its exit runs to its end, whoever interrupts it."""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock
from typing import Any

from sqlalchemy.orm import Session, SessionTransaction

from ._finish import finish, needs_io, raise_in_place, set_context
from ._outcome import Outcome, decide

_INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


class Exit(ABC):
    """The exit of a scope, carried out once and to its end, whoever interrupts it."""

    __slots__ = ("_commit_on", "_once", "_savepoint", "_session", "_task")

    def __init__(
        self,
        session: Session,
        commit_on: tuple[type[BaseException], ...],
        savepoint: SessionTransaction | None = None,
    ) -> None:
        self._session = session
        self._commit_on = commit_on
        self._savepoint = savepoint
        self._once: Once | None = None
        self._task: asyncio.Task[None] | None = None

    async def leave(self, error: BaseException | None) -> None:
        """End the scope, and raise what is to leave in place of `error`, if any.

        Called again with what has left a call, it does what an interrupt kept that call
        from doing.
        """
        once, interrupt = self._once, error
        if once is None:
            interrupt = None
            outcome = decide(error, self._commit_on)
            once = self._once = Once(partial(self._finish, outcome, error))
            self._try_at_once(once, outcome)
        # Of what has left the block isinstance() may raise. A coroutine that is closed
        # can wait for nothing.
        elif once.done or issubclass(type(error), GeneratorExit):
            return
        while not once.done:
            interrupt = await self._wait(once, interrupt)
        if interrupt is None:
            raise_in_place(once.failure)
        else:
            if once.failure is not None:
                set_context(interrupt, once.failure)
            elif interrupt is not error:
                set_context(interrupt, error)
            raise_in_place(interrupt)

    def _finish(
        self, outcome: Outcome, error: BaseException | None
    ) -> BaseException | None:
        return finish(self._session, self._savepoint, outcome, error)

    def _try_at_once(self, once: "Once", outcome: Outcome) -> None:
        """Carry the exit out where it has nothing to wait for."""
        if self._savepoint is None and not needs_io(self._session, outcome):
            once()

    @abstractmethod
    async def _where_it_waits(self, work: Callable[[], None]) -> None:
        """Carry the work out where it can wait for the database."""

    async def _wait(
        self, once: "Once", interrupt: BaseException | None
    ) -> BaseException | None:
        """Wait for the exit in its task; return an interrupt that is to be raised."""
        raised: BaseException | None = None
        with nullcontext() if interrupt is None else _shield():
            try:
                task = self._task
                # A second is begun where every task of the loop is cancelled, as when
                # it shuts down: then the exit may not have begun, or go on in a thread.
                if task is None or task.done():
                    task = self._task = asyncio.create_task(self._run(once))
                await asyncio.wait((task,))
            except _INTERRUPTS as caught:
                raised = caught
        if self._task is not None and self._task.done() and not self._task.cancelled():
            try:
                self._task.result()
            except _INTERRUPTS as stopped_the_loop:
                raised = stopped_the_loop
        if interrupt is None or issubclass(type(interrupt), asyncio.CancelledError):
            return raised or interrupt
        return interrupt

    async def _run(self, once: "Once") -> None:
        # A KeyboardInterrupt may have come before the task was kept; then another is.
        if asyncio.current_task() is self._task:
            await self._where_it_waits(once)


class Once:
    """What is carried out once; whoever comes second waits for it."""

    def __init__(self, ending: Callable[[], BaseException | None]) -> None:
        self._ending = ending
        self._lock = Lock()
        self.done = False
        self.failure: BaseException | None = None

    def __call__(self) -> None:
        with self._lock:
            if not self.done:
                self.failure = self._ending()
                self.done = True


def _shield() -> AbstractContextManager[object]:
    # A cancelled anyio scope cancels again at every await, which would keep the loop
    # busy for as long as the exit takes. Where nobody has imported anyio there is no
    # such scope.
    anyio: Any = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
