"""Connections that a server ends, and work that it is to stop."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from backends import wait_until
from contract import Habitat, assert_nothing_left
from safesession import OutcomeUnknown
from test_postgresql import Writes, sqlstate_of

pytestmark = pytest.mark.on("postgresql")


def pid_of(session: Session) -> int:
    pid = session.scalar(text("SELECT pg_backend_pid()"))
    assert pid is not None
    return pid


def end_backend(observer: Engine, pid: int) -> None:
    """End a connection from the server's side, and wait until it has ended."""
    with observer.connect() as connection:
        ended = text("SELECT pg_terminate_backend(:pid, 10000)")
        assert connection.scalar(ended, {"pid": pid})


def run_more(session: Session) -> None:
    session.execute(text("SELECT 1"))


def end_normally(session: Session) -> None:
    pass


@pytest.mark.parametrize("then", [run_more, end_normally])
def test_connection_that_the_server_ends_in_the_block(
    habitat: Habitat, observer: Engine, then: Callable[[Session], None]
) -> None:
    """It is told by the next statement, or by the COMMIT where none follows."""

    def lose(session: Session) -> None:
        end_backend(observer, pid_of(session))
        then(session)

    writes = Writes(lose)

    left = habitat.run(writes)

    assert isinstance(left, DBAPIError)
    assert left.connection_invalidated
    assert not hasattr(left, "__notes__")
    assert_nothing_left(habitat, writes.session, [])


def test_connection_that_the_server_ends_before_an_exception(
    habitat: Habitat, observer: Engine
) -> None:
    """The exception leaves, with a note of the ROLLBACK that could not be sent."""
    error = LookupError("the cause")

    def lose(session: Session) -> BaseException:
        end_backend(observer, pid_of(session))
        return error

    writes = Writes(lose)

    assert habitat.run(writes) is error
    assert_rollback_failed(error)
    assert_nothing_left(habitat, writes.session, [])


def test_connection_that_the_server_ends_during_rollback(
    habitat: Habitat, observer: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception leaves where the ROLLBACK is on its way to a server that ends."""
    error = LookupError("the cause")
    dialect, pids = habitat.engine.dialect, list[int]()
    roll_back = dialect.do_rollback

    def lose(session: Session) -> BaseException:
        pids.append(pid_of(session))
        return error

    def end_and_roll_back(connection: Any) -> None:
        if pids:
            end_backend(observer, pids.pop())
        roll_back(connection)

    writes = Writes(lose)
    monkeypatch.setattr(dialect, "do_rollback", end_and_roll_back)

    assert habitat.run(writes) is error
    assert pids == []
    assert_rollback_failed(error)
    assert_nothing_left(habitat, writes.session, [])


def assert_rollback_failed(error: BaseException) -> None:
    (note,) = error.__notes__
    assert note.startswith("safesession: rollback failed, so the connection was inv")


@pytest.fixture
def commit_that_is_cut_off(observer: Engine) -> Iterator[None]:
    """Have the server end each connection that commits a note, in its COMMIT."""
    with observer.begin() as connection:
        connection.execute(
            text("""
            CREATE FUNCTION cut_off() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(10);
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER cut_off AFTER INSERT ON note
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut_off()
            """)
        )
    yield
    with observer.begin() as connection:
        connection.execute(text("DROP FUNCTION IF EXISTS cut_off CASCADE"))


def test_connection_that_the_server_ends_during_commit(
    habitat: Habitat, observer: Engine, commit_that_is_cut_off: None
) -> None:
    """A COMMIT that is cut off may have been done, for what the client knows."""
    writes = Writes()

    left = habitat.run(writes)

    assert isinstance(left, OutcomeUnknown)
    assert left.connection_invalidated
    assert not hasattr(left, "__notes__")
    with observer.begin() as connection:
        connection.execute(text("DROP FUNCTION cut_off CASCADE"))
    assert_nothing_left(habitat, writes.session, [])


@pytest.mark.parametrize("pre_ping", [True, False])
def test_connection_that_the_server_ends_in_the_pool(
    habitat: Habitat, observer: Engine, pre_ping: bool
) -> None:
    """With pool_pre_ping nobody notices; without, one block fails, and says so."""
    habitat.engine.pool._pre_ping = pre_ping
    pids: list[int] = []
    writes = Writes()

    assert habitat.run(lambda session: pids.append(pid_of(session))) is None
    end_backend(observer, pids[0])
    left = habitat.run(writes)

    if pre_ping:
        assert left is None
    else:
        assert isinstance(left, DBAPIError)
        assert left.connection_invalidated
    assert_nothing_left(habitat, writes.session, ["lost"] if pre_ping else [])


@pytest.mark.parametrize(
    "setting, sqlstate",
    [("statement_timeout", "57014"), ("lock_timeout", "55P03")],
)
def test_timeout_of_a_statement(
    habitat: Habitat, observer: Engine, setting: str, sqlstate: str
) -> None:
    """A statement that the server gives up on is an error like any other."""

    def wait(session: Session) -> None:
        session.execute(text(f"SET LOCAL {setting} = 20"))
        session.execute(text("LOCK TABLE reply"))

    writes = Writes(wait)
    with observer.begin() as rival:
        rival.execute(text("LOCK TABLE reply"))
        left = habitat.run(writes)

    assert isinstance(left, DBAPIError)
    assert sqlstate == sqlstate_of(left)
    assert not left.connection_invalidated
    assert_nothing_left(habitat, writes.session, [])


def test_timeout_of_a_transaction_at_rest(habitat: Habitat, observer: Engine) -> None:
    """A block that rests for too long has lost its work, and is told so."""

    def rest(session: Session) -> None:
        pid = pid_of(session)
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 20"))
        with observer.connect() as connection:
            wait_until(connection, f"NOT EXISTS (SELECT FROM others WHERE pid = {pid})")

    writes = Writes(rest)

    left = habitat.run(writes)

    assert isinstance(left, DBAPIError)
    assert left.connection_invalidated
    assert_nothing_left(habitat, writes.session, [])
