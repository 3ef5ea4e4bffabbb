"""A KeyboardInterrupt in the library's own code leaves nothing behind, by enumeration.

It is raised before the first, second, ... n-th opcode of the exit and of entering,
until the unit of work runs untouched.
"""

import asyncio
import ctypes
import dis
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType, TracebackType
from typing import Any, Self

import pytest
from sqlalchemy import Engine, delete
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from contract import OWN_FILES
from models import Note, stored
from safesession import async_session_scope, session_scope
from safesession.testing._faults import Faults

FILES = {str(path) for path in OWN_FILES}
EXHAUSTIVE = bool(os.environ.get("SAFESESSION_EXHAUSTIVE"))

# A function, and the opcode in it that did not run.
Position = tuple[str, str]

# Where the connection stays out until a collection, and nothing can be done about it:
# the block is behind, and an exception handler of __exit__ covers none of these.
UNAVOIDABLE: set[Position] = {
    # Python has called it, and looks for signals before its first instruction.
    ("session_scope.__exit__", "RESUME"),
    # The try statement begins. Python does not look for signals here.
    ("session_scope.__exit__", "NOP"),
}


class Interruption:
    """Raises KeyboardInterrupt before one opcode of the library, counted from 1."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._count = 0
        self.position: Position | None = None

    def __enter__(self) -> Self:
        self._displaced = sys.gettrace()
        # Python 3.12 traces opcodes only where a frame asks for it before settrace().
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._call)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._displaced)

    def traces(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename in FILES

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        if not self.traces(frame):
            return None
        # Python 3.13 traces opcodes only where f_trace is set before this is.
        frame.f_trace = self._opcode
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._opcode(frame, "opcode", arg)

    def _opcode(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self._count += 1
            if self._count == self._at:
                return self.interrupt(frame)
        return self._opcode

    def interrupt(self, frame: FrameType) -> Any:
        self._interrupted_at(frame)
        raise KeyboardInterrupt

    def _interrupted_at(self, frame: FrameType) -> None:
        code = frame.f_code
        opcode = dis.opname[code.co_code[max(frame.f_lasti, 0)]]
        self.position = (code.co_qualname, opcode)

    @classmethod
    def each(cls, step: int = 1) -> Iterator[Self]:
        """Yield one for each opcode, until one was not reached."""
        for at in count(1, step):
            interruption = cls(at)
            yield interruption
            if interruption._count < at:
                return


class Signal(Interruption):
    """Has a SIGINT arrive there; Python raises it where it next looks for signals."""

    # Trace functions in C: Python would look for signals when it calls one of its own.
    _in_c = ctypes.PYFUNCTYPE(None, *[ctypes.py_object] * 3)
    _arrive = _in_c(("PyErr_SetInterrupt", ctypes.pythonapi))
    _pass = _in_c(("Py_IsInitialized", ctypes.pythonapi))

    def __enter__(self) -> Self:
        self._handler = signal.signal(signal.SIGINT, self._handle)
        return super().__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        try:
            super().__exit__(*exc_info)
        finally:
            signal.signal(signal.SIGINT, self._handler)

    def traces(self, frame: FrameType) -> bool:
        # With the statement that calls the library's code.
        return super().traces(frame) or frame.f_code is hold.__code__

    def interrupt(self, frame: FrameType) -> Any:
        # Before the next opcode of this frame.
        sys.settrace(self._pass)
        caller = frame.f_back
        while caller is not None and self.traces(caller):
            caller.f_trace = self._pass
            caller = caller.f_back
        return self._arrive

    def _handle(self, number: int, frame: FrameType | None) -> None:
        sys.settrace(self._displaced)
        # Elsewhere it is for others to deal with, and a weakref's callback loses it.
        if frame is not None and self.traces(frame):
            super().interrupt(frame)


class CtrlC(Interruption):
    """Has a SIGINT handled there, by the handler that asyncio.run() installs."""

    def interrupt(self, frame: FrameType) -> Any:
        self._interrupted_at(frame)
        signal.raise_signal(signal.SIGINT)
        return self._opcode


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


def hold(scope: session_scope[Session], body: Callable[[Session], Any]) -> None:
    with scope as session:
        body(session)


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


@first_units(2)
def test_raised(
    fails: dict[str, type[BaseException]], engine: Engine, observer: Engine
) -> None:
    """The connection is back wherever it can be, and all was committed or nothing."""
    out = set(left_out(Interruption, fails, engine, observer))

    assert out == UNAVOIDABLE


@first_units(1)
def test_signal(
    fails: dict[str, type[BaseException]], engine: Engine, observer: Engine
) -> None:
    """A signal, which Python raises at few opcodes, meets one that is unavoidable."""
    out = set(left_out(Signal, fails, engine, observer))

    assert out == {("session_scope.__exit__", "RESUME")}


def left_out(
    kind: type[Interruption],
    fails: dict[str, type[BaseException]],
    engine: Engine,
    observer: Engine,
) -> Iterator[Position]:
    """Yield where an interruption leaves the connection out until a collection."""
    for interruption in kind.each():
        is_out = run(interruption, fails, engine)
        # Now without the exception and its traceback, which hold the session.
        assert is_out == engine.pool.checkedout()  # type: ignore[attr-defined]
        if is_out:
            assert interruption.position is not None
            yield interruption.position
            gc.collect()
        assert stored(observer) in ([], ["first", "second"])
        with engine.begin() as connection:
            connection.execute(delete(Note))


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


def contexts(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


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
        with engine.begin() as connection:
            connection.execute(delete(Note))


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
