"""A unit of work that is interrupted at its first, second, ... n-th suspension."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

Task = asyncio.Task[Any]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """How a unit has taken an interrupt, or that it had no suspension for it."""

    at: int
    # Whether there was a suspension number `at`; if not, the unit was left alone.
    reached: bool
    # How many the block had, if it has ended.
    of_block: int | None
    # Of the whole unit, with those that the interrupt has caused.
    suspensions: int
    hung: bool
    # Whether the interrupt did not come back to where it came from,
    lost: bool
    # and what came there instead, if anything was raised.
    error: BaseException | None
    pending: frozenset[Task]

    @property
    def in_block(self) -> bool:
        """Tell whether it came before the block had ended."""
        return self.of_block is None or self.at <= self.of_block

    @property
    def faults(self) -> list[str]:
        """Say what is wrong, whatever the unit has done to its database."""
        told = {
            "it does not end": self.hung,
            f"the cancellation was lost: {_name(self.error)} was raised": self.lost,
            f"a task was left running: {_names(self.pending)}": self.pending,
        }
        return [fault for fault, is_so in told.items() if is_so]


class Unit:
    """A unit of work, run in a task that is interrupted at one suspension.

    Args:
        run: A coroutine function that does the work, any number of times. It gets the
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

    def block_ends(self) -> None:
        """Be told that what follows is the exit."""
        self._suspensions.of_block = self._suspensions.count

    async def interrupted(self, at: int, interrupt: "Interrupt") -> Interrupted:
        """Run the unit, and interrupt it at its suspension number `at`, if any."""
        self._suspensions = suspensions = Suspensions(self._run(self), at)
        bystanders = asyncio.all_tasks()
        task = asyncio.create_task(interrupt.around(suspensions))
        suspensions.interrupt = partial(
            interrupt.at, task=task, bystanders=frozenset(bystanders)
        )
        with suspensions.of_tasks():
            await asyncio.wait({task}, timeout=self._patience)
        del suspensions.interrupt
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
            of_block=suspensions.of_block,
            suspensions=suspensions.count,
            hung=hung,
            lost=arrived != reached,
            error=error,
            pending=frozenset(pending),
        )


class Suspensions:
    """Awaits a unit, counts its suspensions and interrupts one of them.

    Those of the tasks that the unit makes count too: what it waits for goes through
    stages there.
    """

    def __init__(self, unit: Coroutine[Any, Any, object], at: int) -> None:
        self._unit = unit
        self._at = at
        self.count = 0
        # How many the block had, once it has ended.
        self.of_block: int | None = None
        self.interrupt: Callable[[Any], None]

    def __await__(self) -> Generator[Any, Any, None]:
        _counting.set(self)
        yield from _Counted(self._unit, self).__await__()

    def suspends(self, future: Any) -> None:
        self.count += 1
        if self.count == self._at:
            self.interrupt(future)

    @contextmanager
    def of_tasks(self) -> Generator[None, None, None]:
        """Count those of the unit's tasks too."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(self._make_task)
        try:
            yield
        finally:
            loop.set_task_factory(before)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> Task:
        if _counting.get(None) is self:
            coroutine = _Counted(coroutine, self)
        return asyncio.Task(coroutine, loop=loop, **options)


_counting: ContextVar[Suspensions] = ContextVar("_counting")


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of its suspensions."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], suspensions: Suspensions
    ) -> None:
        self._coroutine = coroutine
        self._suspensions = suspensions

    def send(self, value: Any) -> Any:
        return self._told(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._told(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def _told(self, future: Any) -> Any:
        self._suspensions.suspends(future)
        return future

    def __getattr__(self, name: str) -> Any:
        # Of inspect.getcoroutinestate(), which anyio asks.
        return getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self.send
        value: Any = None
        while True:
            try:
                future = resume(value)
            except StopIteration as stop:
                return stop.value
            finally:
                # Not to keep an error alive by its own traceback, with all it holds.
                value = None
            try:
                resume, value = self.send, (yield future)
            except BaseException as error:
                resume, value = self.throw, error


class Interrupt:
    """A way to cancel a unit, for any number of runs in turn; this one leaves it alone.

    The others are in `INTERRUPTS` of the module `_interrupts`, by name.
    """

    name: ClassVar[str]
    # Whether it still is to come for a unit that ends without having been told.
    persists: ClassVar[bool] = False

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

    def arrived(self, task: Task) -> bool:
        """Tell whether the interrupt has come back to where it came from."""
        return task.cancelled()


def _name(error: BaseException | None) -> str:
    return "nothing" if error is None else type(error).__name__


def _names(tasks: Iterable[Task]) -> str:
    coroutines: list[Any] = [task.get_coro() for task in tasks]
    return ", ".join(sorted(coroutine.__qualname__ for coroutine in coroutines))
