"""Which errors say that work may succeed when it is run again."""

import sqlite3
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any
from unittest.mock import Mock

import pymysql
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from backends import impatient
from models import Note
from safesession import OutcomeUnknown, session_scope
from safesession._lost import outcome_unknown
from safesession.retry import is_retryable


class PymysqlError(Exception):
    """An error as PyMySQL raises it."""

    __module__ = "pymysql.err"


class MysqlError(Exception):
    """An error as MySQL's own connector raises it."""

    __module__ = "mysql.connector.errors"

    def __init__(self, errno: int) -> None:
        super().__init__(f"{errno} (HY000): told in a text")
        self.errno = errno


class WithState(Exception):
    """An error of psycopg, or of SQLAlchemy's adapter of asyncpg."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("told in a text")
        self.sqlstate = sqlstate


class Psycopg2Error(Exception):
    def __init__(self, pgcode: str) -> None:
        super().__init__("told in a text")
        self.pgcode = pgcode


def sqlite_error(code: int) -> Exception:
    error = sqlite3.OperationalError("told in a text")
    error.sqlite_errorcode = code
    return error


RETRYABLE = [
    WithState("40001"),
    WithState("40P01"),
    WithState("55P03"),
    WithState("57P01"),
    WithState("08006"),
    Psycopg2Error("40001"),
    PymysqlError(1213, "Deadlock found"),
    PymysqlError(1205, "Lock wait timeout exceeded"),
    PymysqlError(1047, "WSREP has not yet prepared node for application use"),
    PymysqlError(1020, "Record has changed since last read"),
    MysqlError(1213),
    sqlite_error(sqlite3.SQLITE_BUSY),
    sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT),
    sqlite_error(sqlite3.SQLITE_LOCKED),
]
OTHERS = [
    WithState("23505"),
    WithState("22012"),
    WithState("40003"),
    WithState("28P01"),
    WithState(None),
    PymysqlError(1062, "Duplicate entry"),
    PymysqlError("1213"),
    PymysqlError(),
    MysqlError(1064),
    sqlite_error(sqlite3.SQLITE_CONSTRAINT),
    sqlite_error(sqlite3.SQLITE_CANTOPEN),
    ValueError(1213),
]


def named(error: Exception) -> str:
    return f"{type(error).__name__} {error.args} {vars(error)}"


@pytest.mark.parametrize("error", RETRYABLE, ids=named)
def test_code_that_asks_for_another_attempt(error: Exception) -> None:
    """The driver's code decides, whichever class SQLAlchemy has made of it."""
    assert is_retryable(error)
    for cls in (DBAPIError, OperationalError, IntegrityError):
        assert is_retryable(cls("UPDATE note", {}, error))


@pytest.mark.parametrize("error", OTHERS, ids=named)
def test_code_that_does_not(error: Exception) -> None:
    """What would fail again, or may have been done, is not run again."""
    assert not is_retryable(error)
    assert not is_retryable(OperationalError("UPDATE note", {}, error))


def test_connection_that_was_lost() -> None:
    """Before COMMIT nothing was done; during COMMIT, nobody knows."""
    lost = WithState(None)
    in_statement = DBAPIError("UPDATE note", {}, lost, connection_invalidated=True)
    in_commit = DBAPIError(None, None, lost, connection_invalidated=True)
    prepared = "COMMIT PREPARED 'x'"

    assert is_retryable(in_statement)
    assert not is_retryable(in_commit)
    assert not is_retryable(OutcomeUnknown(None, None, lost))
    assert not is_retryable(DBAPIError(prepared, {}, lost, connection_invalidated=True))
    assert not is_retryable(DBAPIError(None, None, WithState("08007")))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), OSError()])
def test_error_of_something_else(error: BaseException) -> None:
    """What no database has raised is none of its business."""
    assert not is_retryable(error)


def test_sqlite_that_is_locked(engine: Engine) -> None:
    """A real lock, told by the code of the driver's exception."""
    hurried = impatient(engine)
    with session_scope(engine) as session:
        session.add(Note(text="locks"))
        session.flush()
        with (
            pytest.raises(OperationalError) as raised,
            session_scope(hurried) as other,
        ):
            other.add(Note(text="waits"))
        assert is_retryable(raised.value)
    hurried.dispose()


@pytest.mark.on("postgresql")
def test_row_that_somebody_else_has_locked(make_engine: Callable[..., Engine]) -> None:
    """As with MySQL and SQLite, it may be free by the next attempt."""
    engine = make_engine(pool_size=2)
    with session_scope(engine) as session:
        session.add(Note(text="locked"))
    with session_scope(engine) as session:
        lock(session, 1)
        with pytest.raises(DBAPIError) as raised, session_scope(engine) as other:
            other.get_one(Note, 1, with_for_update={"nowait": True})

    assert is_retryable(raised.value)


def test_commit_whose_connection_is_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves says what is known, and what SQLAlchemy and the driver have said."""
    lost = sqlite3.OperationalError("gone")
    monkeypatch.setattr(engine.dialect, "is_disconnect", lambda *_: True)
    monkeypatch.setattr(engine.dialect, "do_commit", Mock(side_effect=lost))

    with pytest.raises(OutcomeUnknown) as raised, session_scope(engine) as session:
        session.add(Note(text="lost"))

    error = raised.value
    assert error.orig is lost
    assert error.connection_invalidated
    assert isinstance(error.__cause__, OperationalError)
    first, second, *_ = str(error).splitlines()
    assert first == (
        "(The connection was lost during COMMIT: the work may have been committed, or "
        "not. Look for it in a new scope before you do it again.)"
    )
    assert second == "(sqlite3.OperationalError) gone"


@pytest.mark.on("postgresql")
def test_deadlock(make_engine: Callable[..., Engine]) -> None:
    """A real one: each waits for the row that the other has."""
    engine = make_engine(pool_size=2)
    with session_scope(engine) as session:
        session.add_all([Note(text="a"), Note(text="b")])
    meet, errors = Barrier(2, timeout=10), list[Any]()

    def cross(*ids: int) -> None:
        try:
            with session_scope(engine) as session:
                lock(session, ids[0])
                meet.wait()
                lock(session, ids[1])
        except DBAPIError as error:
            errors.append(error)

    threads = [Thread(target=cross, args=ids) for ids in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (error,) = errors
    assert error.orig.sqlstate == "40P01"
    assert is_retryable(error)


def lock(session: Session, id_: int) -> None:
    session.get_one(Note, id_, with_for_update=True)


def test_error_of_mysql_without_a_code() -> None:
    """Its first argument is whatever the driver has to say."""
    assert not is_retryable(pymysql.err.OperationalError(["no code"]))


def test_state_that_is_none() -> None:
    """Any driver may call any thing so."""
    error = WithState(None)
    error.sqlstate = ["40001"]  # type: ignore[assignment]

    assert not is_retryable(error)


@pytest.mark.parametrize("told, expected", [("149", True), ("6", False)])
def test_commit_that_gave_way(told: str, expected: bool) -> None:
    """The number of InnoDB's own error tells, which stands in the text."""
    text = f'Got error {told} "Lock deadlock; Retry transaction" during COMMIT'
    error = pymysql.err.OperationalError(1180, text)

    assert is_retryable(error) is expected


@pytest.mark.parametrize("sqlstate", ["08007", "40003"])
def test_commit_that_a_server_cannot_tell_of(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, sqlstate: str
) -> None:
    """It has not lost the connection, and does not know what became of the work."""
    failed = sqlite3.OperationalError("told in a text")
    failed.sqlstate = sqlstate  # type: ignore[attr-defined]
    monkeypatch.setattr(engine.dialect, "do_commit", Mock(side_effect=failed))

    with (
        pytest.raises(OutcomeUnknown, match="The server has failed during COMMIT"),
        session_scope(engine) as session,
    ):
        session.add(Note(text="lost"))

    monkeypatch.undo()


def test_statement_of_an_unknown_outcome() -> None:
    """Where COMMIT is one, as in two phases, it is told."""
    lost = DBAPIError("COMMIT PREPARED 'a'", {"secret": 1}, WithState("08006"))

    unknown = outcome_unknown(lost)

    assert unknown.statement == "COMMIT PREPARED 'a'"
    assert unknown.params is None
