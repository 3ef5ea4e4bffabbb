"""What MariaDB refuses or ends by itself: deadlocks, locks, and connections."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pymysql
import pytest
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from backends import on_mariadb, started, wait_until_mariadb
from contract import Habitat, assert_nothing_left
from mariadb import mariadb
from models import Note, stored
from safesession import OutcomeUnknown, session_scope
from safesession._lost import was_lost_in_commit
from safesession.retry import is_retryable

pytestmark = pytest.mark.on("mariadb")

WAITS = "EXISTS (SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = '{}')"


class Writes:
    """Writes a note, and does something more."""

    def __init__(self, then: Callable[[Session], object]) -> None:
        self._then = then

    def __call__(self, session: Session) -> BaseException | None:
        self.session = session
        session.add(Note(text="lost"))
        session.flush()
        left = self._then(session)
        return left if isinstance(left, BaseException) else None


def id_of(session: Session) -> int:
    id_ = session.scalar(text("SELECT connection_id()"))
    assert id_ is not None
    return int(id_)


def end_connection(observer: Engine, id_: int) -> None:
    """End a connection from the server's side, and wait until it has ended."""
    with observer.connect() as connection:
        connection.execute(text(f"KILL CONNECTION {id_}"))
        processes = "information_schema.processlist"
        gone = f"NOT EXISTS (SELECT 1 FROM {processes} WHERE id = {id_})"
        wait_until_mariadb(connection, gone)


def run_more(session: Session) -> None:
    session.execute(text("SELECT 1"))


def test_connection_that_the_server_ends_in_the_block(
    habitat: Habitat, observer: Engine
) -> None:
    """It is told by the next statement, and the work may be done again."""

    def lose(session: Session) -> None:
        end_connection(observer, id_of(session))
        run_more(session)

    writes = Writes(lose)

    left = habitat.run(writes)

    assert isinstance(left, DBAPIError)
    assert left.connection_invalidated
    assert is_retryable(left)
    assert not hasattr(left, "__notes__")
    assert_nothing_left(habitat, writes.session, [])


def test_connection_that_the_server_ends_before_the_commit(
    habitat: Habitat, observer: Engine
) -> None:
    """It is told by COMMIT, of which nobody knows then what has become of it."""
    writes = Writes(lambda session: end_connection(observer, id_of(session)))

    left = habitat.run(writes)

    assert isinstance(left, OutcomeUnknown)
    assert not is_retryable(left)
    assert_nothing_left(habitat, writes.session, [])


def test_connection_that_the_server_ends_before_an_exception(
    habitat: Habitat, observer: Engine
) -> None:
    """The exception leaves, with a note of the ROLLBACK that could not be sent."""
    error = LookupError("the cause")

    def lose(session: Session) -> BaseException:
        end_connection(observer, id_of(session))
        return error

    writes = Writes(lose)

    assert habitat.run(writes) is error
    (note,) = error.__notes__
    assert note.startswith("safesession: rollback failed, so the connection was inv")
    assert_nothing_left(habitat, writes.session, [])


@pytest.mark.parametrize("pre_ping", [True, False])
def test_connection_that_the_server_ends_in_the_pool(
    habitat: Habitat, observer: Engine, pre_ping: bool
) -> None:
    """With pool_pre_ping nobody notices; without, one block fails, and says so."""
    habitat.engine.pool._pre_ping = pre_ping
    ids: list[int] = []
    writes = Writes(lambda session: None)

    assert habitat.run(lambda session: ids.append(id_of(session))) is None
    end_connection(observer, ids[0])
    left = habitat.run(writes if pre_ping else run_more)

    if pre_ping:
        assert left is None
        assert_nothing_left(habitat, writes.session, ["lost"])
    else:
        assert isinstance(left, DBAPIError)
        assert left.connection_invalidated
        assert is_retryable(left)


def code_of(error: DBAPIError) -> object:
    assert error.orig is not None
    return error.orig.args[0]


def change(session: Session | Connection, id_: int) -> None:
    session.execute(text(f"UPDATE note SET text = concat(text, '!') WHERE id = {id_}"))


@pytest.fixture
def deadlock(observer: Engine) -> Callable[[Session], None]:
    """Have a session be chosen to give way in a deadlock, and be told so."""
    with observer.begin() as connection:
        for id_ in (101, 102):
            connection.execute(text(f"INSERT INTO note VALUES ({id_}, '{id_}')"))

    def lock_each_other_out(session: Session) -> None:
        change(session, 101)
        with weightier(observer) as rival, observer.connect() as look:
            change(rival, 102)
            waiting = threading.Thread(target=change, args=(rival, 101))
            waiting.start()
            try:
                wait_until_mariadb(look, WAITS.format("LOCK WAIT"))
                change(session, 102)
            finally:
                waiting.join()

    return lock_each_other_out


@contextmanager
def weightier(observer: Engine) -> Iterator[Connection]:
    """Be in a transaction that has done more than another: InnoDB ends the lighter."""
    with observer.connect() as connection:
        for id_ in range(200, 300):
            connection.execute(text(f"INSERT INTO note VALUES ({id_}, 'rival {id_}')"))
        yield connection
        connection.rollback()


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


IN_COMMIT = {
    "a Galera node that loses the others": (
        'Got error 6 "No such device or address" during COMMIT',
        True,
    ),
    "a conflict, in group replication": (
        "Got error 149 - 'Lock deadlock; Retry transaction' during COMMIT",
        False,
    ),
}


@pytest.mark.parametrize("told, is_unknown", IN_COMMIT.values(), ids=IN_COMMIT)
def test_server_that_fails_in_commit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, told: str, is_unknown: bool
) -> None:
    """It has not lost the connection, and cannot say what has become of the work.

    Its error is made here; test_galera.py has the first from a node.
    """
    failed = pymysql.err.OperationalError(1180, told)
    monkeypatch.setattr(engine.dialect, "do_commit", Mock(side_effect=failed))

    with pytest.raises(DBAPIError) as raised, session_scope(engine) as session:
        session.add(Note(text="lost"))

    error = raised.value
    assert error.orig is failed
    assert is_retryable(error) is not is_unknown
    assert isinstance(error, OutcomeUnknown) is is_unknown
    assert not error.connection_invalidated
    if is_unknown:
        assert str(error).startswith(
            "(The server has failed during COMMIT: the work may have been committed, "
            "or not. Look for it in a new scope before you do it again.)"
        )
    monkeypatch.undo()
    assert stored(engine) == []


def test_server_that_fails_in_a_statement() -> None:
    """The same code, elsewhere, says that the work is not committed."""
    failed = pymysql.err.OperationalError(1180, "Got error 6 during COMMIT")

    assert not was_lost_in_commit(OperationalError("INSERT", None, failed))
    assert was_lost_in_commit(OperationalError("XA COMMIT 'a'", None, failed))
