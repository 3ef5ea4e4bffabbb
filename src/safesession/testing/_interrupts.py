"""The ways in which a task is interrupted: `INTERRUPTS`, by readable names."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

import sqlalchemy

from ._suspensions import Interrupt, Suspensions, Task


class Cancel(Interrupt):
    """One native cancellation."""

    name = "cancel"

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        task.cancel()


class CancelTwice(Interrupt):
    """A second one as soon as the task runs on."""

    name = "cancel twice"

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        task.cancel()
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(task.cancel))


class CancelWhenDone(Interrupt):
    """When what the task waits for is done, before the task knows."""

    name = "cancel when done"

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        if future is None:
            task.cancel()
        else:
            future.add_done_callback(partial(_cancel, task))


class CancelAll(Interrupt):
    """Every task that the unit has made too, as a loop does that shuts down."""

    name = "cancel all tasks"

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        for each in asyncio.all_tasks() - bystanders:
            each.cancel()


class Timeout(Interrupt):
    """`asyncio.timeout` that runs out."""

    name = "asyncio.timeout"

    async def around(self, suspensions: Suspensions) -> object:
        async with asyncio.timeout(None) as self._timeout:
            await suspensions
        return None

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())

    def arrived(self, task: Task) -> bool:
        return _left_by(task, TimeoutError)


class WaitFor(Timeout):
    """`asyncio.wait_for` that runs out; before Python 3.12 it makes a task."""

    name = "asyncio.wait_for"

    async def around(self, suspensions: Suspensions) -> object:
        # Its timer is taken from it, so as to run out when the test says so.
        attributes = vars(asyncio.get_running_loop())
        attributes["call_at"] = self._call_at
        await asyncio.wait_for(suspensions, timeout=3600)
        return None

    def _call_at(
        self,
        when: float,
        run_out: Callable[..., object],
        *args: Any,
        context: Any = None,
    ) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        del vars(loop)["call_at"]
        self._run_out = partial(run_out, *args)
        return asyncio.TimerHandle(when, run_out, args, loop, context)

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        asyncio.get_running_loop().call_soon(self._run_out)


class CancelScope(Interrupt):
    """An anyio cancel scope, which cancels again at every await."""

    name = "anyio cancel scope"
    persists = True

    async def around(self, suspensions: Suspensions) -> object:
        import anyio

        with anyio.CancelScope() as self._scope:
            await suspensions
        return self._scope.cancelled_caught

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        self._scope.cancel()

    def arrived(self, task: Task) -> bool:
        ended_well = not task.cancelled() and task.exception() is None
        return ended_well and task.result() is True


class Sibling(Interrupt):
    """A task group in which another task failed."""

    name = "task group"

    async def around(self, suspensions: Suspensions) -> object:
        self._failing = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(self._fail())
            await suspensions
            sibling.cancel()
        return None

    async def _fail(self) -> None:
        await self._failing

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        self._failing.set_exception(LookupError("the sibling"))

    def arrived(self, task: Task) -> bool:
        if not _left_by(task, BaseExceptionGroup):
            return False
        group = cast(BaseExceptionGroup[BaseException], task.exception())
        return all(isinstance(error, LookupError) for error in group.exceptions)


def _cancel(task: Task, future: object) -> None:
    task.cancel()


def _left_by(task: Task, kind: type[BaseException]) -> bool:
    return not task.cancelled() and isinstance(task.exception(), kind)


# Before, SQLAlchemy may lose a connection, or the cancellation, or never unlock SQLite,
# where it is cancelled again while it closes the connection of a cancelled statement.
OUTLASTS_TWO = [*map(int, re.findall(r"\d+", sqlalchemy.__version__))] >= [2, 0, 58]

INTERRUPTS: dict[str, type[Interrupt]] = {
    kind.name: kind
    for kind in (
        Cancel,
        CancelTwice,
        CancelWhenDone,
        CancelAll,
        Timeout,
        WaitFor,
        *((CancelScope,) if find_spec("anyio") else ()),
        Sibling,
    )
}
