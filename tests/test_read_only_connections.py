"""What a read-only session does to its connection is undone for whoever is next."""

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import (
    Engine,
    TwoPhaseTransaction,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import PoolResetState

from contract import Habitat
from innodb import end_connection, id_of
from models import Note, stored
from safesession import session_scope
from safesession._finish import needs_io
from safesession._read_only import _UNDOING, _allow_at_reset, _way_of
from writes import IN_TEXT

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


@pytest.mark.on("postgresql")
def test_transaction_that_text_ends(engine: Engine, observer: Engine) -> None:
    """What is for the transaction alone does not keep who means to write from it."""
    with session_scope(engine, read_only=True) as session:
        for statement in ("COMMIT", IN_TEXT["insert"], "COMMIT"):
            session.execute(text(statement))

    assert stored(observer) == ["written"]


@pytest.mark.on("sqlite")
def test_pragma_that_sqlite_does_not_take_for_a_write(
    engine: Engine, observer: Engine
) -> None:
    """It is kept in the file all the same."""
    with session_scope(engine, read_only=True) as session:
        session.execute(text("PRAGMA journal_mode=WAL"))

    with observer.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"


@pytest.mark.on("postgresql", "mariadb")
@pytest.mark.parametrize("end", ["rollback", "close", "commit", None])
def test_two_phase_session(engine: Engine, observer: Engine, end: str | None) -> None:
    """It commits nothing, so it needs no two phases, which would begin too early."""
    maker = sessionmaker(engine, twophase=True, close_resets_only=True)

    with session_scope(maker, read_only=True) as session:
        assert session.scalars(select(Note)).all() == []
        with pytest.raises(DBAPIError):
            session.execute(text(IN_TEXT["insert"]))
        session.rollback()
        session.scalars(select(Note)).all()
        if end is not None:
            getattr(session, end)()

    assert stored(observer) == []
    # It is the user's to use again.
    session.add(Note(text="in two phases"))
    session.flush()
    assert isinstance(session.connection().get_transaction(), TwoPhaseTransaction)
    session.commit()
    assert stored(observer) == ["in two phases"]


@pytest.mark.on("mariadb")
def test_rollback_on_a_connection_that_the_server_has_ended(
    habitat: Habitat, observer: Engine
) -> None:
    """It fails as in any session, by an error of SQLAlchemy's."""

    def lose_and_roll_back(session: Session) -> None:
        end_connection(observer, id_of(session))
        with pytest.raises(DBAPIError):
            session.rollback()
        assert session.scalars(select(Note)).all() == []

    for read_only in (False, True):
        assert habitat.run(lose_and_roll_back, read_only=read_only) is None


@pytest.mark.on("sqlite")
def test_connection_that_cannot_be_allowed_to_write_when_it_is_handed_back(
    make_engine: Callable[..., Engine],
) -> None:
    """The pool gives it to nobody."""
    engine = make_engine(pool_size=1, max_overflow=0)
    invalidated: list[object] = []
    event.listen(engine, "invalidate", lambda *args: invalidated.append(args[0]))

    with session_scope(engine, read_only=True) as session:
        session.connection().info[_UNDOING] = "NONSENSE"
        session.close()

    assert len(invalidated) == 1
    with session_scope(engine) as session:
        session.add(Note(text="after"))
    assert stored(engine) == ["after"]


@pytest.mark.on("sqlite")
def test_connection_that_its_next_user_keeps_from_writing(
    make_engine: Callable[..., Engine],
) -> None:
    """What is undone once is not undone again, and the connection is kept."""
    engine = make_engine(pool_size=1, max_overflow=0)
    invalidated: list[object] = []
    event.listen(engine, "invalidate", lambda *args: invalidated.append(args[0]))
    for end in (Session.commit, Session.close, lambda session: None):
        with session_scope(engine, read_only=True) as session:
            session.scalars(select(Note)).all()
            end(session)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 1
            connection.exec_driver_sql("PRAGMA query_only = OFF")

    assert invalidated == []


def test_session_that_is_not_used(engine: Engine) -> None:
    """There is nothing to undo, so its exit has nothing to wait for."""
    with session_scope(engine, read_only=True) as session:
        assert not needs_io(session, "check")
        session.execute(select(1))
        assert needs_io(session, "check")


def test_connection_that_the_garbage_collector_hands_back() -> None:
    """Nothing can be sent on one of an async engine then, and it is closed."""
    driver_connection, entry = Mock(), Mock(info={_UNDOING: "NONSENSE"})
    state = PoolResetState(
        transaction_was_reset=False, terminate_only=True, asyncio_safe=False
    )

    _allow_at_reset(driver_connection, entry, state)

    assert not driver_connection.mock_calls


def test_connection_that_the_block_detaches(engine: Engine) -> None:
    """It is no longer the pool's, and is closed."""
    with session_scope(engine, read_only=True) as session:
        session.scalars(select(Note)).all()
        session.connection().detach()
        session.close()

    with session_scope(engine) as session:
        session.add(Note(text="after"))
    assert stored(engine) == ["after"]


def test_connection_that_was_read_only_before_stays_so(
    make_engine: Callable[..., Engine],
) -> None:
    """What somebody else has forbidden is not allowed at the end."""
    engine = make_engine(pool_size=1, max_overflow=0)
    forbidding = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET default_transaction_read_only = on",
        "mariadb": "SET SESSION TRANSACTION READ ONLY",
    }[engine.dialect.name]
    event.listen(engine, "connect", lambda made, _: execute_on(made, forbidding))

    for level in ("SERIALIZABLE", "AUTOCOMMIT"):
        bind = engine.execution_options(isolation_level=level)
        with session_scope(bind, read_only=True) as session:
            session.scalars(select(Note)).all()

    with pytest.raises(DBAPIError), session_scope(engine) as session:
        session.execute(text(IN_TEXT["insert"]))


def execute_on(driver_connection: Any, statement: str) -> None:
    cursor = driver_connection.cursor()
    cursor.execute(statement)
    cursor.close()
    driver_connection.commit()


@pytest.mark.on("sqlite")
def test_connection_that_cannot_be_allowed_to_write_is_invalidated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody gets it from the pool; what it failed with is told."""
    invalidated: list[object] = []
    event.listen(engine, "invalidate", lambda *args: invalidated.append(args[0]))

    with session_scope(engine, read_only=True) as session:
        session.scalars(select(Note)).all()
        # No such statement, so it fails.
        session.connection().info[_UNDOING] = "NONSENSE"

    assert len(invalidated) == 1
    assert "rollback failed, so the connection was invalidated" in caplog.text
    with session_scope(engine) as session:
        session.add(Note(text="after"))


@pytest.mark.parametrize(
    "name, variable",
    [("mysql", "transaction_read_only"), ("mariadb", "tx_read_only")],
)
def test_variable_of_mysql_and_mariadb(name: str, variable: str) -> None:
    """Each has a name of its own for whether a session may write."""
    connection = Mock(dialect=create_engine(f"{name}+pymysql://").dialect)

    way = _way_of(connection, in_savepoint=False)

    assert way is not None
    assert way.asking == f"SELECT @@session.{variable}"
    assert _way_of(connection, in_savepoint=True) is None
