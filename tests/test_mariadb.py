"""What MariaDB undoes by itself: deadlocks, locks, and rows that have changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import OperationalError, PendingRollbackError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from backends import on_mariadb, started
from contract import Habitat, assert_nothing_left
from innodb import Writes, change, code_of
from mariadb import mariadb
from models import Note, stored
from safesession import session_scope
from safesession.retry import is_retryable

pytestmark = pytest.mark.on("mariadb")
pytest_plugins = ("mariadb_fixtures",)


def test_deadlock(
    habitat: Habitat, observer: Engine, deadlock: Callable[[Session], None]
) -> None:
    """It leaves as it is, the work is undone, and it may be done again."""
    writes = Writes(deadlock)

    left = habitat.run(writes)

    assert isinstance(left, OperationalError)
    assert code_of(left) == 1213
    assert is_retryable(left)
    assert not hasattr(left, "__notes__")
    assert_nothing_left(habitat, writes.session, ["101", "102"])


def test_deadlock_that_was_caught_does_not_end_normally(
    habitat: Habitat, observer: Engine, deadlock: Callable[[Session], None]
) -> None:
    """What was done before it is undone, so what is done after it is not committed."""

    def hide(session: Session) -> None:
        with pytest.raises(OperationalError):
            deadlock(session)
        session.add(Note(text="half"))

    left = habitat.run(Writes(hide))

    assert stored(observer) == ["101", "102"]
    assert isinstance(left, PendingRollbackError)


def test_deadlock_that_was_rolled_back_by_the_block(
    engine: Engine, observer: Engine, deadlock: Callable[[Session], None]
) -> None:
    """What comes after is a transaction of its own, on the same connection, too."""
    with engine.connect() as connection, session_scope(connection) as session:
        with pytest.raises(OperationalError):
            deadlock(session)
        session.rollback()
        session.add(Note(text="anew"))
        session.flush()

    assert stored(observer) == ["101", "102", "anew"]


def test_lock_that_is_waited_for_in_vain(habitat: Habitat, observer: Engine) -> None:
    """A lock that is not given up in time is worth another attempt."""
    with session_scope(observer) as rival:
        rival.add(Note(text="first"))
        rival.flush()

        def wait(session: Session) -> None:
            session.execute(text("SET innodb_lock_wait_timeout = 0"))
            session.execute(text("INSERT INTO note (text) VALUES ('first')"))

        writes = Writes(wait)
        left = habitat.run(writes)

    assert isinstance(left, OperationalError)
    assert code_of(left) == 1205
    assert is_retryable(left)
    assert_nothing_left(habitat, writes.session, ["first"])


def test_row_that_another_has_changed(habitat: Habitat, observer: Engine) -> None:
    """Under snapshot isolation, too, all is undone, and so nothing is committed."""
    with observer.begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (101, '101')"))

    def hide(session: Session) -> None:
        session.execute(text("SET innodb_snapshot_isolation = ON"))
        session.rollback()
        assert session.scalars(select(Note.text)).all() == ["101"]
        session.add(Note(text="lost"))
        session.flush()
        with observer.begin() as connection:
            change(connection, 101)
        with pytest.raises(OperationalError) as raised:
            change(session, 101)
        assert code_of(raised.value) == 1020
        session.add(Note(text="half"))

    left = habitat.run(hide)

    assert stored(observer) == ["101!"]
    assert isinstance(left, PendingRollbackError)


def wait_in_vain(session: Session) -> None:
    """Wait for a row that another holds, and hide that it is not given in time."""
    session.execute(text("SET innodb_lock_wait_timeout = 0"))
    with pytest.raises(OperationalError) as raised:
        session.execute(text("INSERT INTO note (text) VALUES ('first')"))
    assert code_of(raised.value) == 1205


@contextmanager
def first_is_held(observer: Engine) -> Iterator[None]:
    with observer.connect() as rival:
        rival.execute(text("INSERT INTO note (text) VALUES ('first')"))
        yield
        rival.rollback()


def test_lock_that_is_waited_for_in_vain_and_caught(
    habitat: Habitat, observer: Engine
) -> None:
    """It has undone the statement alone, so both halves are kept."""

    def hide(session: Session) -> None:
        wait_in_vain(session)
        session.add(Note(text="half"))

    writes = Writes(hide)

    with first_is_held(observer):
        assert habitat.run(writes) is None
    assert_nothing_left(habitat, writes.session, ["half", "lost"])


def test_deadlock_before_a_lock_that_is_waited_for_in_vain(
    habitat: Habitat, observer: Engine, deadlock: Callable[[Session], None]
) -> None:
    """What has undone less does not hide what has undone all."""

    def hide_both(session: Session) -> None:
        with pytest.raises(OperationalError):
            deadlock(session)
        wait_in_vain(session)

    with first_is_held(observer):
        left = habitat.run(Writes(hide_both))

    assert isinstance(left, PendingRollbackError)


@pytest.mark.once
def test_lock_that_is_waited_for_in_vain_where_that_undoes_all(
    observer: Engine,
) -> None:
    """With an option of the server's nothing is committed after it."""
    with started(mariadb("--innodb-rollback-on-timeout=ON")) as server:
        on_mariadb(server).create_tables()
        engine = create_engine(server.url(observer.driver), poolclass=NullPool)

        with (
            first_is_held(engine),
            pytest.raises(PendingRollbackError),
            session_scope(engine) as session,
        ):
            session.add(Note(text="lost"))
            session.flush()
            wait_in_vain(session)
            session.add(Note(text="half"))

        assert stored(engine) == []
