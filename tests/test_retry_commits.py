"""What work has committed by itself is not done twice."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from models import Note, stored
from retried import Refused, refusal
from safesession._begun import begun_by
from safesession.retry import run_in_session

pytestmark = pytest.mark.usefixtures("no_backoff")
pytest_plugins = ("retry_fixtures",)


def test_work_that_has_committed_is_not_run_again(
    run: Callable[..., Any], observer: Engine
) -> None:
    """What it committed by itself would be done twice."""
    calls: list[Session] = []

    def commit_and_fail(session: Session) -> None:
        calls.append(session)
        session.add(Note(text="committed"))
        session.commit()
        raise refusal()

    with pytest.raises(OperationalError):
        run(commit_and_fail)

    assert len(calls) == 1
    assert stored(observer) == ["committed"]


@pytest.mark.parametrize("first", [True, False])
def test_savepoint_of_the_work_is_no_commit(
    run: Callable[..., Any], observer: Engine, first: bool
) -> None:
    """What a savepoint has released goes with the transaction."""
    errors = [refusal()]

    def nest_and_fail(session: Session) -> None:
        # To SQLite's driver, a savepoint that is the first work is a transaction.
        if not first:
            session.add(Note(text="around"))
            session.flush()
        with session.begin_nested():
            session.add(Note(text="nested"))
        if errors:
            raise errors.pop()

    run(nest_and_fail)

    assert stored(observer) == ["around"] * (not first) + ["nested"]


def test_hook_that_fails_after_the_commit(
    run: Callable[..., Any], observer: Engine
) -> None:
    """The work is done, whatever a listener of the commit raises then."""
    errors = [refusal()]

    def fail(session: Session) -> None:
        if errors:
            raise errors.pop()

    # For every session, and so told before any listener of one of them.
    event.listen(Session, "after_commit", fail)
    try:
        with pytest.raises(OperationalError):
            run(Refused())
    finally:
        event.remove(Session, "after_commit", fail)

    assert stored(observer) == ["once"]


def test_commit_of_a_connection_is_one(
    run: Callable[..., Any], observer: Engine
) -> None:
    """It commits what the session has done, without the session's events."""

    def commit_and_fail(session: Session) -> None:
        session.add(Note(text="committed"))
        session.flush()
        session.connection().commit()
        raise refusal()

    with pytest.raises(OperationalError):
        run(commit_and_fail)

    assert stored(observer) == ["committed"]


def test_autocommit_commits_each_statement(
    run: Callable[..., Any], observer: Engine
) -> None:
    """There is no transaction that could be refused as a whole."""
    options = {"isolation_level": "AUTOCOMMIT"}

    def write_and_fail(session: Session) -> None:
        session.connection(execution_options=options)
        session.add(Note(text="committed"))
        session.flush()
        raise refusal()

    with pytest.raises(OperationalError):
        run(write_and_fail)

    assert stored(observer) == ["committed"]


@pytest.mark.on("sqlite")
def test_commit_in_text_is_not_seen(engine: Engine, observer: Engine) -> None:
    """It is as documented, and the work is done twice."""
    errors = [refusal()]

    def write(session: Session) -> None:
        session.add(Note(text=f"with {len(errors)} left"))
        session.flush()
        session.execute(text("COMMIT"))
        if errors:
            raise errors.pop()

    run_in_session(engine, write)

    assert stored(observer) == ["with 0 left", "with 1 left"]


@pytest.mark.on("postgresql", "mariadb")
def test_commit_of_two_phases(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """It is one, too; and nothing is committed by what it is prepared with."""
    maker = sessionmaker(make_engine(), twophase=True)
    errors = [refusal(), refusal()]

    def write(session: Session) -> None:
        session.add(Note(text="committed"))
        session.flush()
        if len(errors) > 1:
            raise errors.pop()
        (connection,) = begun_by(session)
        transaction: Any = connection.get_transaction()
        transaction.prepare()
        transaction.commit()
        raise errors.pop()

    with pytest.raises(OperationalError):
        run_in_session(maker, write)

    assert errors == []
    assert stored(observer) == ["committed"]
