"""`verify` finds the faults that the usual factories have, and no others."""

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import (
    ExitStack,
    contextmanager,
)
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker

from safesession import async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing import ContractBroken, verify
from verified import UNIT, broken, leaking

TASK = {9}


REQUEST = {10, 11, 12, 13, 14}


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_timeout=1)


def test_scope_keeps_all_promises(engine: Engine) -> None:
    """A scope is held against what is asked of a block."""
    report = verify(lambda: session_scope(engine))

    report.raise_for_broken()
    assert report.promises == UNIT


def test_async_scope_keeps_all_promises(async_engine: AsyncEngine) -> None:
    """An async scope is cancelled too."""
    report = verify(lambda: async_session_scope(async_engine))

    report.raise_for_broken()
    assert report.promises == UNIT | TASK


def test_dependency_keeps_all_promises(engine: Engine) -> None:
    """A dependency is held against all that can be asked."""
    report = verify(session_dependency(engine))

    report.raise_for_broken()
    assert report.promises == UNIT | TASK | REQUEST


def test_async_dependency_keeps_all_promises(async_engine: AsyncEngine) -> None:
    """An async dependency is held against all that can be asked."""
    report = verify(async_session_dependency(async_engine))

    report.raise_for_broken()
    assert report.promises == UNIT | TASK | REQUEST


@pytest.mark.parametrize(
    "name, faults, kept",
    [
        pytest.param(
            "double_yield",
            {1, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14},
            {2, 6, 15},
            marks=leaking,
        ),
        pytest.param(
            "by_hand",
            {5, 7, 9, 10, 12},
            {1, 2, 4, 6, 11, 13, 14, 15},
            marks=leaking,
        ),
        ("begin", {1, 5, 6, 7}, {2, 4, 15}),
        pytest.param(
            "sqlmodel_docs",
            {2, 3, 5, 7, 10, 12},
            {1, 4, 6, 11, 13, 14, 15},
            marks=leaking,
        ),
        pytest.param(
            "fastapi_docs",
            {2, 3, 5, 7, 10, 12},
            {1, 4, 6, 11, 13, 14, 15},
            marks=leaking,
        ),
        ("safe", set(), UNIT | TASK | REQUEST),
    ],
)
def test_examples(factories: Any, name: str, faults: set[int], kept: set[int]) -> None:
    """The faults of the usual factories are found, on any version of the libraries."""
    report = verify(getattr(factories, name))

    assert faults <= report.broken.keys()
    assert kept.isdisjoint(report.broken)


def test_interrupt_of_the_check_itself_is_raised(engine: Engine) -> None:
    """A Ctrl-C while `verify` runs is nobody's fault, and ends it."""
    interrupt = KeyboardInterrupt()
    done: list[str] = []

    def interrupt_at_the_end(*args: object) -> None:
        done.append("commit")
        if len(done) == 5:
            raise interrupt

    event.listen(engine, "commit", interrupt_at_the_end)

    with pytest.raises(KeyboardInterrupt) as caught:
        verify(lambda: session_scope(engine))

    assert caught.value is interrupt
    assert {"note", "reply"} == set(inspect(engine).get_table_names())


def test_engine_of_somebody_else_is_not_watched(
    engine: Engine, make_engine: Callable[..., Engine]
) -> None:
    """A connection of another engine that is out meanwhile is no leak."""
    other = make_engine()
    with ExitStack() as held:

        @contextmanager
        def factory() -> Iterator[Session]:
            held.close()
            held.enter_context(other.connect())
            with session_scope(engine) as session:
                yield session

        assert 3 not in broken(factory)


def test_report_is_raised_when_it_is_asked(engine: Engine) -> None:
    """One line of a suite fails with the table, and an example for each promise."""
    report = verify(sessionmaker(engine), ignore={1, 5})

    with pytest.raises(ContractBroken) as caught:
        report.raise_for_broken()

    assert (
        str(caught.value)
        == """\
2 promises are broken

 1  The exception raised in the block leaves unchanged    -
 2  All of the work is committed, or none                 kept
 3  The session is closed, its connection back and clean  kept
 4  A commit that fails is raised                         kept
 5  A cleanup that fails hides no exception               -
 6  A failed flush is heard of, even if it was caught     BROKEN
 7  After its end the session refuses work                BROKEN
 9  A cancelled exit runs to its end                      -
10  The transaction ends before the answer begins         -
11  A 400 is a 400, and a 422 a 422                       -
12  A request has one session                             -
13  Endpoints and WebSockets of each kind are served      -
14  Requests that fail all at once are all answered       -
15  Log and notes hold no parameters                      kept

 6  nothing was written, and no exception reached the caller:
        session.add_all([Row(text="row-1"), Row(text="row-1")])
        with suppress(IntegrityError):
            session.flush()
 7  a statement afterwards is executed, on a connection taken anew:
        pass
"""
    )


def test_nothing_is_left_of_the_check(engine: Engine) -> None:
    """Its table is dropped, and the process is as it was."""
    handlers, hook = [*logging.getLogger().handlers], sys.unraisablehook

    verify(sessionmaker(engine))

    assert {"note", "reply"} == set(inspect(engine).get_table_names())
    assert handlers == logging.getLogger().handlers
    assert sys.unraisablehook is hook
    assert gc.isenabled()
