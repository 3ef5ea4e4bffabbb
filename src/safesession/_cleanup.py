"""Leaving a scope from asyncio: its exit runs to its end, whoever interrupts it."""

import asyncio
import sys
from abc import ABC, abstractmethod
from asyncio import Task
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, cast

from sqlalchemy.orm import Session, SessionTransaction

from ._finish import finish, needs_io, raise_in_place, set_context
from ._outcome import CommitOn, Outcome, decide

INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)


class Exit(ABC):
    """The exit of a scope, carried out once and to its end, whoever interrupts it."""

    __slots__ = (
        "_commit_on",
        "_done",
        "_error",
        "_failure",
        "_lock",
        "_outcome",
        "_savepoint",
        "_session",
        "_task",
    )

    def __init__(
        self,
        session: Session,
        commit_on: CommitOn,
        savepoint: SessionTransaction | None = None,
    ) -> None:
        self._session = session
        self._commit_on = commit_on
        self._savepoint = savepoint
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self._failure: BaseException | None = None
        self._done = False
        self._lock = Lock()
        self._task: Task[None] | None = None

    async def leave(self, error: BaseException | None) -> None:
        """End the scope, and raise what is to leave in place of `error`, if any.

        Called again with what has left a call, it does what an interrupt kept that call
        from doing.
        """
        interrupt = error
        if self._outcome is None:
            interrupt = None
            self._error = error
            self._outcome = decide(error, self._commit_on)
            self._try_at_once(self._outcome)
            if not self._done:
                interrupt = await self._wait_in_place()
        # Of what has left the block isinstance() may raise. A coroutine that is closed
        # can wait for nothing.
        elif self._done or issubclass(type(error), GeneratorExit):
            return
        # Where a thread that an interrupt left has ended it, the task is still to hear.
        while not (self._done and (self._task is None or self._task.done())):
            interrupt = await self._wait(interrupt)
        if interrupt is not None:
            if self._failure is not None:
                set_context(interrupt, self._failure)
            elif interrupt is not error:
                set_context(interrupt, error)
            raise_in_place(interrupt)
        raise_in_place(self._failure)

    def _try_at_once(self, outcome: Outcome) -> None:
        """Carry the exit out where it has nothing to wait for."""
        if not needs_io(self._session, outcome):
            self._carry_out()

    def _carry_out(self) -> None:
        """Carry the exit out; whoever comes second waits for it, and does nothing."""
        with self._lock:
            if not self._done:
                self._failure = self._finish()
                self._done = True

    def _finish(self) -> BaseException | None:
        outcome = cast(Outcome, self._outcome)
        return finish(self._session, self._savepoint, outcome, self._error)

    @abstractmethod
    async def _where_it_waits(self) -> None:
        """Carry the exit out where it can wait for the database."""

    async def _wait_in_place(self) -> BaseException | None:
        """Wait for the exit without a task, where an interrupt cannot cut it short."""
        return None

    async def _wait(self, interrupt: BaseException | None) -> BaseException | None:
        """Wait for the exit in its task; return an interrupt that is to be raised."""
        raised: BaseException | None = None
        with nullcontext() if interrupt is None else _shield():
            try:
                task = self._task
                # A second is begun where every task of the loop is cancelled, as when
                # it shuts down: then the exit may not have begun, or go on in a thread.
                if task is None or task.done():
                    # Not create_task(): an eager one would run before it is kept.
                    task = self._task = Task(self._run())
                await asyncio.wait((task,))
            except INTERRUPTS as caught:
                raised = caught
        if self._task is not None and self._task.done() and not self._task.cancelled():
            try:
                self._task.result()
            except INTERRUPTS as stopped_the_loop:
                raised = stopped_the_loop
        if interrupt is None or issubclass(type(interrupt), asyncio.CancelledError):
            return raised or interrupt
        return interrupt

    async def _run(self) -> None:
        # A KeyboardInterrupt may have come before the task was kept; then another is.
        if asyncio.current_task() is self._task:
            await self._where_it_waits()


def _shield() -> AbstractContextManager[object]:
    # A cancelled anyio scope cancels again at every await, which would keep the loop
    # busy for as long as the exit takes. Where nobody has imported anyio there is no
    # such scope.
    anyio: Any = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
