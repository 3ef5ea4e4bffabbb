"""The enumeration of suspensions notices a unit that takes its interrupt badly."""

import asyncio

import pytest

from safesession.testing._interrupts import Cancel
from safesession.testing._suspensions import Interrupt, Unit

pytestmark = pytest.mark.anyio


async def test_unit_that_loses_the_cancellation() -> None:
    """It ends as if it had not been cancelled, or by another error."""

    async def swallow(unit: Unit) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return

    async def replace(unit: Unit) -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise LookupError from None

    seen = await Unit(swallow).interrupted(1, Cancel())
    assert seen.faults == ["the cancellation was lost: nothing was raised"]
    seen = await Unit(replace).interrupted(1, Cancel())
    assert seen.faults == ["the cancellation was lost: LookupError was raised"]


async def test_unit_that_leaves_a_task() -> None:
    """A task that the unit has made, and not waited for."""
    made: list[asyncio.Task[None]] = []

    async def run(unit: Unit) -> None:
        made.append(asyncio.create_task(asyncio.sleep(60)))

    seen = await Unit(run).interrupted(0, Interrupt())
    assert seen.pending == set(made)
    made[0].cancel()


async def test_unit_that_hangs() -> None:
    """It is cancelled in the end."""

    async def run(unit: Unit) -> None:
        await asyncio.Event().wait()

    seen = await Unit(run, patience=0.01).interrupted(0, Interrupt())
    assert "it does not end" in seen.faults


async def test_unit_that_fails_untouched() -> None:
    """Its own error is raised, as nothing can be learnt of it."""

    async def run(unit: Unit) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await Unit(run).interrupted(0, Interrupt())


async def test_coroutine_that_is_closed() -> None:
    """What counts for a coroutine can be closed as it can."""

    async def run(unit: Unit) -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        task.get_coro().close()

    assert (await Unit(run).interrupted(0, Interrupt())).faults == []
