"""Units of work, what each stores, and the ways in which a call in one may fail."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models import Note
from safesession import session_scope
from safesession.testing._faults import Fault


class Unheard(Exception):
    """What no driver would raise."""


class Stop(BaseException):
    """What is no Exception, and no KeyboardInterrupt either."""


def driver_error(**options: Any) -> Fault:
    return Fault(sqlite3.OperationalError("disk I/O error"), **options)


def disconnect(**options: Any) -> Fault:
    return driver_error(disconnect=True, **options)


def unheard(**options: Any) -> Fault:
    return Fault(Unheard("of"), **options)


def interrupt(**options: Any) -> Fault:
    return Fault(KeyboardInterrupt(), **options)


def stop(**options: Any) -> Fault:
    return Fault(Stop(), **options)


KINDS = (driver_error, disconnect, unheard, interrupt, stop)
# Those that SQLAlchemy or the pool keeps to itself.
RESETS = ("hook reset", "reset")
KEPT = ("cursor close", *RESETS, "close")


@dataclass(frozen=True)
class Unit:
    """A unit of work: what is done, and what is stored after none, one, two commits."""

    work: Callable[[Session], BaseException | None]
    stored: tuple[list[str], ...]
    options: dict[str, Any] = field(default_factory=dict)


def add(session: Session, *texts: str) -> None:
    session.add_all([Note(text=text) for text in texts])
    session.flush()


def add_flush_query(session: Session) -> None:
    add(session, "a")
    session.scalars(select(Note)).all()
    session.add(Note(text="b"))


def two_flushes(session: Session) -> None:
    add(session, "a")
    add(session, "b", "c")


def many(session: Session) -> None:
    session.execute(insert(Note), [{"text": "a"}, {"text": "b"}])


def savepoint(session: Session) -> None:
    add(session, "a")
    with session.begin_nested():
        add(session, "b")


def raises(session: Session) -> BaseException:
    add(session, "a")
    return LookupError("of the body")


def poisoned(session: Session) -> None:
    with suppress(IntegrityError):
        add(session, "a", "a")


def inner_scope(session: Session) -> None:
    add(session, "a")
    with session_scope(session):
        session.add(Note(text="b"))


def inner_scope_that_raises(session: Session) -> None:
    add(session, "a")
    with suppress(LookupError), session_scope(session):
        add(session, "lost")
        raise LookupError("of the inner body")
    session.add(Note(text="b"))


def own_commit(session: Session) -> None:
    add(session, "a")
    session.commit()
    session.add(Note(text="b"))


def read(session: Session) -> None:
    session.scalars(select(Note)).all()


def unused(session: Session) -> None:
    pass


AB = ([], ["a", "b"])
UNITS = {
    "add, flush, query": Unit(add_flush_query, AB),
    "two flushes": Unit(two_flushes, ([], ["a", "b", "c"])),
    "many": Unit(many, AB),
    "savepoint": Unit(savepoint, AB),
    "raises": Unit(raises, ([],)),
    "commit_on": Unit(raises, ([], ["a"]), {"commit_on": LookupError}),
    "poisoned": Unit(poisoned, ([],)),
    "inner scope": Unit(inner_scope, AB),
    "inner scope that raises": Unit(inner_scope_that_raises, AB),
    "own commit": Unit(own_commit, ([], ["a"], ["a", "b"])),
    "read": Unit(read, ([], [])),
    "unused": Unit(unused, ([],)),
}


HIDING = (UNITS["poisoned"], UNITS["inner scope that raises"])
