"""What the kit has done in a session: units of work, from the smallest up."""

import asyncio
import inspect
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ._row import Row


class Gone(Exception):
    """Raised in a block, by nobody else."""


class Torn(Exception):
    """What no driver would raise."""


def _refuse(*args: Any) -> NoReturn:
    raise Torn


_HOSTILE = ("__str__", "__repr__", "__eq__", "__hash__", "__bool__", "add_note")
# Raises when it is looked at.
Hostile = type("Hostile", (Exception,), dict.fromkeys(_HOSTILE, _refuse))


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses attributes."""


def caused() -> BaseException:
    """Return an exception that has a cause."""
    error = Gone()
    error.__cause__ = Torn()
    return error


def grouped() -> BaseException:
    """Return an exception group."""
    return ExceptionGroup("several", [Gone()])


def nothing(session: Session, error: BaseException) -> None:
    pass


def raising(session: Session, error: BaseException) -> None:
    raise error


def adding(session: Session, error: BaseException) -> None:
    session.add(Row(text="row-1"))


def loading(session: Session, error: BaseException) -> None:
    row = session.scalars(select(Row)).one()
    if row.text:
        raise error


def flushing(session: Session, error: BaseException) -> None:
    session.add(Row(text="row-1"))
    session.flush()
    raise error


def nesting(session: Session, error: BaseException) -> None:
    session.add(Row(text="row-1"))
    session.begin_nested()
    session.add(Row(text="row-2"))
    session.flush()
    raise error


def clashing(session: Session, error: BaseException) -> None:
    session.add_all([Row(text="row-1"), Row(text="row-1")])
    session.flush()


def clashing_at_commit(session: Session, error: BaseException) -> None:
    session.add_all([Row(text="row-1"), Row(text="row-1")])


def poisoning(session: Session, error: BaseException) -> None:
    session.add_all([Row(text="row-1"), Row(text="row-1")])
    with suppress(IntegrityError):
        session.flush()


DRIVER, ODD, INTERRUPT = "the driver's OperationalError", "Torn", "KeyboardInterrupt"


@dataclass(frozen=True)
class Case:
    """A body of work, what it raises, and which call of the driver fails, and how."""

    body: Callable[[Session, BaseException], None]
    error: Callable[[], BaseException] | None = None
    call: str | None = None
    how: str = DRIVER

    def failure(self, engine: Engine) -> BaseException | None:
        """Return what the call that fails is to raise."""
        if self.call is None:
            return None
        if self.how == INTERRUPT:
            return KeyboardInterrupt()
        if self.how == ODD:
            return Torn()
        driver: Any = engine.dialect.loaded_dbapi
        failure: BaseException = driver.OperationalError(f"{self.call} failed")
        return failure

    @property
    def writes(self) -> bool:
        """Tell whether the body ends normally, and has written something."""
        return self.body in (adding, clashing_at_commit, poisoning)

    def example(self, commits: bool) -> str:
        """Return the lines of the block, and what is needed to follow them."""
        lines = lines_of(self.body, commit=self.writes and not commits)
        notes: list[str] = []
        if self.error is not None and self.error is not Gone:
            notes.append(f"error is {_ERRORS[self.error]}")
        if self.call is not None:
            notes.append(f"the {self.call} raises {self.how}")
        return "\n# ".join([lines, *notes])


def lines_of(body: Callable[..., None], commit: bool) -> str:
    """Return what stands below a function's first line, and a commit if asked."""
    lines = textwrap.dedent(inspect.getsource(body).partition("\n")[2]).rstrip()
    return f"{lines}\nsession.commit()" if commit else lines


def refused() -> BaseException:
    """Return the exception of an endpoint that refuses."""
    if find_spec("fastapi") is None:
        return Gone()
    from fastapi import HTTPException

    return HTTPException(400)


_ERRORS: dict[Callable[[], BaseException], str] = {
    ValueError: "ValueError",
    KeyError: "KeyError",
    TimeoutError: "TimeoutError",
    refused: "HTTPException(400)",
    caused: "an exception with a __cause__",
    KeyboardInterrupt: "KeyboardInterrupt",
    SystemExit: "SystemExit",
    asyncio.CancelledError: "CancelledError",
    GeneratorExit: "GeneratorExit",
    StopIteration: "StopIteration",
    StopAsyncIteration: "StopAsyncIteration",
    grouped: "an ExceptionGroup",
    Frozen: "a frozen dataclass",
    Hostile: "an exception whose __str__, __eq__, __bool__ and so on raise",
}

CASES = (
    Case(nothing),
    Case(adding),
    Case(raising, Gone),
    *(Case(raising, error) for error in _ERRORS),
    Case(loading, Gone),
    Case(flushing, Gone),
    *(Case(flushing, error) for error in _ERRORS),
    Case(nesting, Gone),
    Case(clashing),
    Case(clashing_at_commit),
    Case(poisoning),
    *(
        Case(body, error, call, how)
        for body, error, call in (
            (adding, None, "commit"),
            (flushing, Gone, "rollback"),
            (adding, None, "reset"),
        )
        for how in (DRIVER, ODD, INTERRUPT)
    ),
)
