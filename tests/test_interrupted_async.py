"""A KeyboardInterrupt raised in the midst of an event loop leaves nothing behind.

By enumeration: before the first, second, ... n-th opcode of the library's own code
after the block, until the unit of work runs untouched. It stops the loop, and
asyncio.run() cancels what is left. A first Ctrl-C, by which asyncio.run() cancels, is
in test_interrupted.py; this is the second, or any in a loop that is run otherwise.
"""

import asyncio
import gc
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import fail_after
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from interruptions import Position, contexts
from models import stored
from safesession import _cleanup, async_session_scope
from safesession._cleanup import Exit
from safesession._threads import ThreadExit
from safesession.testing._faults import Faults
from units import EXHAUSTIVE, ROWS, Client, Place, app_of, work

SCRIPT = Path(__file__).with_name("interrupted_loop.py")

# Where the connection stays out until a collection, and nothing can be done about it:
# of the exit nothing has run, and no handler is on the way out of it.
UNAVOIDABLE: dict[str, set[Position]] = {
    # Python resumes the coroutine; its try statement begins.
    "scope": {
        ("async_session_scope.__aexit__", "RESUME"),
        ("async_session_scope.__aexit__", "NOP"),
    },
    # Python 3.11 resumes the generator, to throw what it has not thrown then.
    "async session": {("dependency.<locals>.session_of_request", "YIELD_VALUE")},
    "sync session": {("dependency.<locals>.session_of_request", "YIELD_VALUE")},
}
# Where the exit waits for the driver, and an older SQLAlchemy loses the connection: it
# closes one by waiting for it, in a coroutine that is closed itself.
LOST_BY_SQLALCHEMY: set[Position] = {
    (function, opcode)
    for function in ("AsyncExit._where_it_waits", "Exit._run")
    for opcode in ("RESUME", "SEND", "YIELD_VALUE", "JUMP_BACKWARD_NO_INTERRUPT")
}


@pytest.mark.parametrize("end", ["normally", "raised"])
@pytest.mark.parametrize("kind", UNAVOIDABLE)
def test_raised_in_the_loop(
    kind: str, end: str, async_engine: AsyncEngine, tried: Counter[str]
) -> None:
    """The connection is back wherever it can be, and all was committed or nothing."""
    step = "1" if EXHAUSTIVE else "17"
    told = subprocess.run(
        [sys.executable, SCRIPT, kind, end, step],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=100,
    )

    found = [(tuple(position), faults) for position, faults in json.loads(told.stdout)]
    tried["opcodes, interrupted in the loop"] += len(found)
    known = UNAVOIDABLE[kind]
    if not async_engine.dialect.has_terminate:
        known = known | LOST_BY_SQLALCHEMY
    assert len(found) > 300 / int(step)
    broken = [(position, faults) for position, faults in found if faults]
    unavoidable = [(position, ["connection out"]) for position in known]
    # There the loop is interrupted in a callback, which knows nothing of the task.
    unavoidable += [
        (position, ["exception of the block lost"])
        for position, _ in found
        if position[0] == "_end"
    ]
    assert [each for each in broken if each not in unavoidable] == []


class Interrupting(AsyncSession):
    """Has a KeyboardInterrupt stop the loop before its exit begins."""

    stops = False

    async def run_sync(self, *args: Any, **kwargs: Any) -> Any:
        if self.stops:
            self.stops = False
            raise KeyboardInterrupt
        return await super().run_sync(*args, **kwargs)


@pytest.mark.parametrize("error", [None, LookupError()])
def test_loop_that_is_stopped_in_the_exit(
    error: BaseException | None, async_engine: AsyncEngine, engine: Engine
) -> None:
    """The exit begins again when asyncio.run() cancels what the loop has left."""

    async def unit() -> None:
        async with async_session_scope(async_engine, class_=Interrupting) as session:
            await session.run_sync(work)
            session.stops = True
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt) as raised:
        asyncio.run(unit())
    context = raised.value.__context__
    # asyncio complains of a task whose exception nobody asked for: here, and not in
    # another test.
    del raised
    gc.collect()

    assert context is error
    assert stored(engine) == (ROWS if error is None else [])
    assert async_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def once_interrupted(function: Callable[..., Any], after: bool) -> Callable[..., Any]:
    """Return the function, with a KeyboardInterrupt before or after its first call."""
    interrupts = [KeyboardInterrupt()]

    def call(*args: Any) -> Any:
        if interrupts and not after:
            raise interrupts.pop()
        returned = function(*args)
        if interrupts:
            raise interrupts.pop()
        return returned

    return call


@pytest.mark.parametrize("fault", [None, OSError()])
@pytest.mark.parametrize(
    "where, name, after",
    [
        # Where nothing but __aexit__ can catch it.
        pytest.param(Exit, "_wait", False, id="between steps"),
        # Where the task has begun, and is not kept.
        pytest.param(_cleanup, "Task", True, id="task not kept"),
    ],
)
@pytest.mark.anyio
async def test_exit_goes_on_after_an_interrupt(
    where: Any,
    name: str,
    after: bool,
    fault: Exception | None,
    async_engine: AsyncEngine,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is raised after the end of the exit, with what failed there as context."""
    monkeypatch.setattr(where, name, once_interrupted(getattr(where, name), after))
    faults = {} if fault is None else {"commit": fault}

    with pytest.raises(KeyboardInterrupt) as raised, Faults(async_engine, faults):
        async with async_session_scope(async_engine) as session:
            await session.run_sync(work)

    assert raised.value.__context__ is fault
    assert stored(engine) == (ROWS if fault is None else [])
    assert async_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_second_interrupt_of_an_exit_that_waits(
    async_engine: AsyncEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyboardInterrupt after a cancellation leaves in place of it."""
    interrupts: list[BaseException] = [KeyboardInterrupt(), asyncio.CancelledError()]
    wait = asyncio.wait

    async def interrupted_wait(tasks: Any) -> Any:
        if interrupts:
            raise interrupts.pop()
        return await wait(tasks)

    monkeypatch.setattr(asyncio, "wait", interrupted_wait)

    with pytest.raises(KeyboardInterrupt):
        async with async_session_scope(async_engine) as session:
            await session.run_sync(work)

    assert stored(engine) == ROWS


@pytest.mark.anyio
async def test_exit_that_is_closed_while_it_waits(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """It waits for nothing more, as a coroutine that is closed may not."""
    returned = asyncio.Event()
    event.listen(async_engine.sync_engine, "checkin", lambda *_: returned.set())
    scope = async_session_scope(async_engine)
    session = await scope.__aenter__()
    await session.run_sync(work)
    leaving = scope.__aexit__(None, None, None)
    leaving.send(None)

    leaving.close()

    with fail_after(5):
        await returned.wait()
    assert stored(engine) == ROWS


@pytest.mark.parametrize(
    "kind, exit_, name",
    [
        ("sync session", ThreadExit, "_wait_in_place"),
        ("async session", Exit, "_wait"),
    ],
)
def test_exit_of_a_request_goes_on_after_an_interrupt(
    kind: str,
    exit_: type[Exit],
    name: str,
    async_engine: AsyncEngine,
    engine: Engine,
    monkeypatch: Any,
) -> None:
    """It is raised after the end of the exit, with what failed there as context."""
    interrupted = once_interrupted(getattr(exit_, name), after=False)
    monkeypatch.setattr(exit_, name, interrupted)
    fault = OSError()
    used: Any = engine if kind == "sync session" else async_engine

    with pytest.raises(KeyboardInterrupt) as raised, Faults(used, {"commit": fault}):
        asyncio.run(
            Client(app_of(Place(engine, async_engine, Counter()), kind, int)).ask()
        )

    assert fault in contexts(raised.value)
    assert stored(engine) == []
