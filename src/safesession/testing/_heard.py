"""What Python and asyncio say while a factory is held: notes, and not on stderr."""

import gc
import logging
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SAWarning

from safesession._report import describe

# They say what they have to say to nobody if nobody listens, and not on stderr.
_LOGGERS = ("asyncio", "sqlalchemy")


class Heard:
    """What was said of the code under test, once each."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """Hear what is said, and have what has leaked closed soon."""
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        silent = logging.NullHandler()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(silent)
        # It is asked for each leak, and need not look at all that was there before.
        gc.freeze()
        try:
            with warnings.catch_warnings(), self._listening_to_warnings():
                yield
                gc.collect()
        finally:
            gc.unfreeze()
            for name in _LOGGERS:
                logging.getLogger(name).removeHandler(silent)
            sys.unraisablehook = hook

    def of_loop(self, loop: Any, context: dict[str, Any]) -> None:
        """Hear of what an event loop has nobody to tell."""
        error = context.get("exception")
        told = context["message"].rstrip("!")
        get_coro = getattr(context.get("task", context.get("future")), "get_coro", None)
        if get_coro is not None:
            told += f": {get_coro().__qualname__}"
        if error is not None:
            told += f": {describe(error)}"
        self._note(told)
        loop.default_exception_handler(context)

    @contextmanager
    def _listening_to_warnings(self) -> Generator[None, None, None]:
        # What it would say of a leaked connection is found by counting.
        warnings.filterwarnings("ignore", "The garbage collector is", SAWarning)
        warnings.filterwarnings("always", "coroutine .* was never", RuntimeWarning)
        show = warnings.showwarning

        def hear(message: Any, category: Any, *where: Any, **more: Any) -> None:
            if category is RuntimeWarning and "was never awaited" in str(message):
                self._note(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = hear
        try:
            yield
        finally:
            warnings.showwarning = show

    def _unraisable(self, unraisable: Any) -> None:
        # That a generator yields once more where it is closed.
        if isinstance(unraisable.exc_value, RuntimeError):
            self._note(str(unraisable.exc_value))

    def _note(self, told: str) -> None:
        note = f"Python says: {told}."
        if note not in self.notes:
            self.notes.append(note)
