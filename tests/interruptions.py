"""Interruptions of the library's own code, at each of its opcodes."""

import ctypes
import dis
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType, TracebackType
from typing import Any, Self

from sqlalchemy.orm import Session

from contract import OWN_FILES
from safesession import session_scope

FILES = {str(path) for path in OWN_FILES}

# A function, and the opcode in it that did not run.
Position = tuple[str, str]


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


def hold(scope: session_scope[Session], body: Callable[[Session], Any]) -> None:
    with scope as session:
        body(session)


def contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its context, and so on."""
    while error is not None:
        yield error
        error = error.__context__
