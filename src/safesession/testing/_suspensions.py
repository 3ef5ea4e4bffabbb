"""A unit of work that is interrupted at its first, second, ... n-th suspension."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, cast

Task = asyncio.Task[Any]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """How a unit has taken an interrupt, or that it had no suspension for it."""

    at: int
    # Whether there was a suspension number `at`; if not, the unit was left alone.
    reached: bool
    in_block: bool
    # Of the whole unit, with those that the interrupt has caused.
    suspensions: int
    hung: bool
    # Whether the interrupt did not come back to where it came from,
    lost: bool
    # and what came there instead, if anything was raised.
    error: BaseException | None
    pending: frozenset[Task]

    @property
    def faults(self) -> list[str]:
        """Say what is wrong, whatever the unit has done to its database."""
        told = {
            "it did not end": self.hung,
            f"the cancellation was lost: {self.error!r}": self.lost,
            f"a task was left pending: {sorted(map(str, self.pending))}": self.pending,
        }
        return [fault for fault, is_so in told.items() if is_so]


class Unit:
    """A unit of work, run in a task that is interrupted at one suspension.

    Args:
        run: A coroutine function that does the work from its beginning. It gets the
            unit, and calls `block_ends` on it where the block that holds the session
            ends, so that what follows is known to be the exit.
        patience: Seconds after which a run is said to hang.
    """

    def __init__(
        self, run: Callable[["Unit"], Coroutine[Any, Any, object]], patience: float = 10
    ) -> None:
        self._run = run
        self._patience = patience
        self._suspensions: Suspensions
        self._ended_after: int | None = None

    def block_ends(self) -> None:
        """Be told that what follows is the exit."""
        self._ended_after = self._suspensions.count

    async def first_of_exit(self) -> int:
        """Run the unit untouched; return the number of its exit's first suspension."""
        await self.interrupted(0, Cancel())
        if self._ended_after is None:
            raise ValueError("The unit has to call block_ends() where its block ends.")
        return self._ended_after + 1

    async def at_each(
        self, interrupt: "Interrupt", first: int = 1
    ) -> AsyncIterator[Interrupted]:
        """Interrupt the unit at each suspension from `first` on, a run for each.

        The last run is the one that has no such suspension, and so is complete.
        """
        reached = True
        while reached:
            seen = await self.interrupted(first, interrupt)
            reached = seen.reached
            first += 1
            yield seen

    async def interrupted(self, at: int, interrupt: "Interrupt") -> Interrupted:
        """Run the unit, and interrupt it at its suspension number `at`, if any."""
        self._ended_after = None
        self._suspensions = suspensions = Suspensions(self._run(self), at)
        bystanders = asyncio.all_tasks()
        task = asyncio.create_task(interrupt.around(suspensions))
        suspensions.interrupt = partial(
            interrupt.at, task=task, bystanders=frozenset(bystanders)
        )
        await asyncio.wait({task}, timeout=self._patience)
        pending = asyncio.all_tasks() - bystanders - {task}
        reached = 0 < at <= suspensions.count
        hung = not task.done()
        arrived = not hung and interrupt.arrived(task)
        error = None if hung or arrived or task.cancelled() else task.exception()
        if hung:
            task.cancel()
        elif error is not None and not reached:
            raise error
        return Interrupted(
            at=at,
            reached=reached,
            in_block=self._ended_after is None or at <= self._ended_after,
            suspensions=suspensions.count,
            hung=hung,
            lost=arrived != reached,
            error=error,
            pending=frozenset(pending),
        )


class Suspensions:
    """Awaits a coroutine, counts its suspensions and interrupts one of them."""

    def __init__(self, unit: Coroutine[Any, Any, object], at: int) -> None:
        self._unit = unit
        self._at = at
        self.count = 0
        self.interrupt: Callable[[Any], None]

    def __await__(self) -> Generator[Any, Any, None]:
        resume: Callable[[Any], Any] = self._unit.send
        value: Any = None
        while True:
            try:
                future = resume(value)
            except StopIteration:
                return
            self.count += 1
            if self.count == self._at:
                self.interrupt(future)
            try:
                resume, value = self._unit.send, (yield future)
            except BaseException as error:
                resume, value = self._unit.throw, error


class Interrupt:
    """A way to cancel a unit. One instance serves any number of runs in turn."""

    name: ClassVar[str]

    async def around(self, suspensions: Suspensions) -> object:
        """Run the unit, below whatever is to interrupt it."""
        await suspensions
        return None

    def at(self, future: Any, task: Task, bystanders: frozenset[Task]) -> None:
        """Interrupt the unit, which is about to wait for `future`.

        Args:
            future: What the event loop was given; ``None`` for a bare turn of the loop.
            task: The one that runs `around`.
            bystanders: The tasks that were there before.
        """
        raise NotImplementedError

    def arrived(self, task: Task) -> bool:
        """Tell whether the interrupt has come back to where it came from."""
        return task.cancelled()


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
        loop.call_soon(partial(loop.call_soon, task.cancel))


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
