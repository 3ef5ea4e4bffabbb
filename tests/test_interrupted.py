"""A KeyboardInterrupt in the library's own code leaves nothing behind, by enumeration.

It is raised before the first, second, ... n-th opcode of the exit and of entering,
until the unit of work runs untouched.
"""

import asyncio
import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, delete
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from interruptions import CtrlC, Interruption, Position, Signal, contexts, hold
from models import Note, stored
from safesession import async_session_scope, session_scope
from safesession._turns import guard_of, open_guarded
from safesession.testing._faults import Faults

EXHAUSTIVE = bool(os.environ.get("SAFESESSION_EXHAUSTIVE"))

# Where the connection stays out until a collection, and nothing can be done about it:
# the block is behind, and an exception handler of __exit__ covers none of these.
UNAVOIDABLE: set[Position] = {
    # Python has called it, and looks for signals before its first instruction.
    ("session_scope.__exit__", "RESUME"),
    # The try statement begins.
    ("session_scope.__exit__", "NOP"),
}
# Where a lock is taken by a `with` statement: from 3.14 on Python looks for signals
# before it has begun, and leaves the lock taken.
KEPT_BY_PYTHON: set[Position] = (
    {("_in_turn.<locals>.call", "CALL")} if sys.version_info >= (3, 14) else set()
)
# Of these Python looks for signals at one.
MET_BY_SIGNAL: set[Position] = {("session_scope.__exit__", "RESUME")}


def left_by(
    interruption: Interruption, bind: Any, body: Callable[[Session], Any]
) -> BaseException | None:
    """Return what left a scope that was interrupted."""
    scope = session_scope(bind)
    try:
        with interruption:
            hold(scope, body)
    except BaseException as error:
        return error
    return None


def forget(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(Note))


def work(session: Session) -> None:
    session.add(Note(text="first"))
    session.flush()
    session.add(Note(text="second"))


# What of a unit fails, and with what.
UNITS: dict[str, dict[str, type[BaseException]]] = {
    "ends": {},
    "block raised": {"block": LookupError},
    "commit fails": {"commit": OSError},
    "rollback fails": {"block": LookupError, "rollback": OSError},
    "interrupted before": {"commit": KeyboardInterrupt},
}


def first_units(number: int) -> pytest.MarkDecorator:
    names = list(UNITS)[: None if EXHAUSTIVE else number]
    fails = [UNITS[name] for name in names]
    return pytest.mark.parametrize("fails", fails, ids=names)


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    engine = make_engine(pool_size=1, max_overflow=0, pool_timeout=1)
    gc.disable()
    yield engine
    gc.enable()


@pytest.mark.allow_session_leaks(reason="it counts where one is left out")
@first_units(1)
def test_raised(
    fails: dict[str, type[BaseException]],
    engine: Engine,
    observer: Engine,
    tried: Counter[str],
) -> None:
    """The connection is back wherever it can be, and all was committed or nothing."""
    out = set(left_out(Interruption, fails, engine, observer, tried))

    assert out == UNAVOIDABLE


@pytest.mark.allow_session_leaks(reason="it counts where one is left out")
@first_units(1)
def test_signal(
    fails: dict[str, type[BaseException]],
    engine: Engine,
    observer: Engine,
    tried: Counter[str],
) -> None:
    """A signal, which Python raises at few opcodes, meets one that is unavoidable."""
    out = set(left_out(Signal, fails, engine, observer, tried))

    assert out == MET_BY_SIGNAL


def left_out(
    kind: type[Interruption],
    fails: dict[str, type[BaseException]],
    engine: Engine,
    observer: Engine,
    tried: Counter[str],
) -> Iterator[Position]:
    """Yield where an interruption leaves the connection out until a collection."""
    for interruption in kind.each():
        is_out = run(interruption, fails, engine)
        tried[f"opcodes, {kind.__name__}"] += interruption.position is not None
        # Now without the exception and its traceback, which hold the session.
        assert is_out == engine.pool.checkedout()  # type: ignore[attr-defined]
        if is_out:
            assert interruption.position is not None
            yield interruption.position
            gc.collect()
        assert stored(observer) in ([], ["first", "second"])
        forget(engine)


def run(
    interruption: Interruption, fails: dict[str, type[BaseException]], engine: Engine
) -> int:
    """Run a unit, check what leaves it, and return how many connections are out."""
    errors = {where: error() for where, error in fails.items()}
    of_block = errors.pop("block", None)

    def body(session: Session) -> None:
        work(session)
        if of_block is not None:
            raise of_block

    with Faults(engine, errors):
        left = left_by(interruption, engine, body)
    if interruption.position is not None:
        assert isinstance(left, KeyboardInterrupt)
        if of_block is not None and of_block.__traceback__ is not None:
            assert of_block in contexts(left)
    out: int = engine.pool.checkedout()  # type: ignore[attr-defined]
    return out


@pytest.mark.parametrize(
    "kind, expected",
    [
        pytest.param(Signal, {"__exit__"}, id="signal"),
        # On entering: it is begun, and __enter__ has not returned.
        pytest.param(
            Interruption,
            {"begin_savepoint", "__enter__", "__exit__"},
            id="raised",
            marks=pytest.mark.skipif(not EXHAUSTIVE, reason="takes its time"),
        ),
    ],
)
def test_savepoint(
    kind: type[Interruption],
    expected: set[str],
    engine: Engine,
    observer: Engine,
) -> None:
    """It has ended wherever it can be, and the outer session goes on."""
    open_still: set[str] = set()
    for interruption in kind.each():
        with Session(engine) as outer:
            outer.add(Note(text="before"))
            outer.flush()
            left = left_by(interruption, outer, work)
            assert (left is None) == (interruption.position is None)
            if outer.in_nested_transaction():
                assert interruption.position is not None
                open_still.add(interruption.position[0].rpartition(".")[2])
            outer.commit()
        assert stored(observer) in (["before"], ["before", "first", "second"])
        forget(engine)

    assert open_still == expected


def test_signal_in_the_turn_of_a_thread(engine: Engine) -> None:
    """Whenever a call of a session is interrupted, others have their turn."""
    kept: set[Position | None] = set()
    with ThreadPoolExecutor(1) as others:
        for interruption in Signal.each():
            session = open_guarded(lambda: Session(engine))
            assert session is not None
            turn = guard_of(session).turn
            with suppress(KeyboardInterrupt), interruption:
                session.connection()
            if not others.submit(is_free, turn).result():
                kept.add(interruption.position)
                turn.release()
            session.close()

    assert kept == KEPT_BY_PYTHON


def is_free(turn: Any) -> bool:
    """Tell whether a thread that asks for a turn has it."""
    free = turn.acquire(blocking=False)
    if free:
        turn.release()
    return free


@pytest.fixture
def handles_sigint() -> Iterator[None]:
    """Have Python handle SIGINT, which a shell makes its background jobs ignore."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("handles_sigint")
@pytest.mark.parametrize("error", [None, LookupError()], ids=["ends", "raised"])
def test_ctrl_c_under_asyncio(
    error: BaseException | None, async_engine: AsyncEngine, engine: Engine
) -> None:
    """An async scope has ended when asyncio.run() raises KeyboardInterrupt."""
    for interruption in CtrlC.each(1 if EXHAUSTIVE else 10):

        async def unit(interruption: CtrlC = interruption) -> None:
            async with async_session_scope(async_engine) as session:
                await session.run_sync(work)
                interruption.__enter__()
                if error is not None:
                    raise error

        left = None
        try:
            asyncio.run(unit())
        except BaseException as raised:
            left = raised
        finally:
            interruption.__exit__(None, None, None)
        assert async_engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        kept = ["first", "second"] if error is None else []
        if isinstance(left, KeyboardInterrupt):
            assert stored(engine) in ([], kept)
        else:
            # Not reached, or by a task that ends with an exception of its own.
            assert left is error
            assert error is not None or interruption.position is None
            assert stored(engine) == kept
        forget(engine)


class FaultySession(Session):
    """Fails once, where no step of the exit expects it."""

    fault: BaseException | None = None

    def in_transaction(self) -> bool:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return super().in_transaction()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RecursionError])
def test_failure_between_steps(kind: type[BaseException], engine: Engine) -> None:
    """Whatever fails there is raised, after rollback and close."""
    fault = kind()
    scope = session_scope(engine, class_=FaultySession)
    with pytest.raises(kind) as raised, scope as session:
        work(session)
        session.fault = fault

    assert raised.value is fault
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert stored(engine) == []


def test_failure_between_steps_after_an_exception(engine: Engine) -> None:
    """It is noted at the exception of the block, which leaves."""
    scope = session_scope(engine, class_=FaultySession)
    with pytest.raises(LookupError) as raised, scope as session:
        work(session)
        session.fault = RecursionError("too deep")
        raise LookupError

    (note,) = raised.value.__notes__
    assert note == (
        "safesession: exit failed, so what was left of it was done then, without a "
        "commit: RecursionError: too deep"
    )
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert stored(engine) == []


def test_failure_before_the_first_step(engine: Engine) -> None:
    """It is raised with the exception of the block as context."""

    class Asked(type):
        def __subclasscheck__(cls, other: type) -> bool:
            raise KeyboardInterrupt

    class Hostile(Exception, metaclass=Asked):
        pass

    error = LookupError()
    scope = session_scope(engine, commit_on=Hostile)
    with pytest.raises(KeyboardInterrupt) as raised, scope as session:
        work(session)
        raise error

    assert raised.value.__context__ is error
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert stored(engine) == []
