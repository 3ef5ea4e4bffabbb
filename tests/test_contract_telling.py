"""The contract's rows, in every habitat, of what is told of a failure, and how."""

import logging
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from contract import Add, Habitat, assert_nothing_left, assert_usable
from models import Note
from safesession.testing._faults import Fault, Faults
from safesession.testing._request import InRequest

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


@pytest.fixture
def refusing_filter() -> Iterator[None]:
    def refuse(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    logger = logging.getLogger("safesession")
    logger.addFilter(refuse)
    yield
    logger.removeFilter(refuse)


@pytest.mark.usefixtures("refusing_filter")
def test_logging_that_fails_takes_nothing_s_place(habitat: Habitat) -> None:
    """A logging filter that raises is no failure of the exit; the note is there."""
    error = ValueError("the cause")
    add = Add(error)

    with Faults(habitat.engine, {"rollback": RuntimeError("torn")}):
        left = habitat.run(add)

    assert left is error
    assert len(error.__notes__) == 1
    assert_nothing_left(habitat, add.session, [])


class Hostile(Exception):
    """Raises when asked for its truth or its text."""

    def __bool__(self) -> bool:
        raise ZeroDivisionError

    def __str__(self) -> str:
        raise ZeroDivisionError


class Unreadable(Hostile):
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError


@pytest.fixture
def hostile(habitat: Habitat) -> type[Exception]:
    """Return the worst exception that the habitat could stand without a scope."""
    # contextlib, and so FastAPI, does not get past reading one.
    return Hostile if isinstance(habitat.harness, InRequest) else Unreadable


def test_hostile_exception_of_a_commit_hook_leaves(
    habitat: Habitat, hostile: type[Exception]
) -> None:
    """A commit that fails by an exception that raises when looked at is raised."""
    failure = hostile()

    def refuse(*args: object) -> None:
        raise failure

    def listen(session: Session) -> None:
        session.add(Note(text="lost"))
        event.listen(session, "before_commit", refuse)

    assert habitat.run(listen) is failure
    assert_usable(habitat, [])


@pytest.mark.parametrize("hostile_too", [False, True])
def test_hostile_exception_is_not_replaced_by_what_is_told_of_it(
    habitat: Habitat, hostile: type[Exception], hostile_too: bool
) -> None:
    """An exception that raises when looked at leaves, and the exit is complete."""
    error = hostile()
    failure = hostile() if hostile_too else RuntimeError("torn")
    add = Add(error)

    with Faults(habitat.engine, {"rollback": Fault(failure)}):
        left = habitat.run(add)

    assert left is error
    assert_nothing_left(habitat, add.session, [])


def test_interrupt_while_a_failure_is_logged_is_not_held_back(habitat: Habitat) -> None:
    """An interrupt that arrives in a logging filter leaves, after the exit."""
    interrupt = KeyboardInterrupt()
    add = Add(ValueError("the cause"))

    logger = logging.getLogger("safesession")
    with (
        Faults(habitat.engine, {"rollback": RuntimeError("torn")}),
        patch.object(logger, "error", side_effect=interrupt),
    ):
        left = habitat.run(add)

    assert left is interrupt
    assert_nothing_left(habitat, add.session, [])


def test_nothing_written_holds_bound_parameters(
    habitat: Habitat, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the note nor the log record holds what a statement was given."""
    error = ValueError()

    def clash(session: Session) -> BaseException:
        session.add_all([Note(text="secret"), Note(text="secret")])
        return error

    habitat.run(clash, commit_on=ValueError)

    assert "IntegrityError" in error.__notes__[0]
    assert "secret" not in "".join(error.__notes__) + caplog.text
