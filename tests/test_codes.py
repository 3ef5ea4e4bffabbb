"""Which errors say that work may succeed when it is run again."""

import errno
import socket
import sqlite3
import ssl
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any
from unittest.mock import Mock

import asyncpg
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from backends import impatient
from models import Note
from safesession import OutcomeUnknown, session_scope
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


def test_sqlite_file_that_cannot_be_opened(tmp_path: Any) -> None:
    """It will not be there the next time, either."""
    with pytest.raises(OperationalError) as raised:
        connect(f"sqlite:///{tmp_path}/nowhere/x.db")

    assert not is_retryable(raised.value)


def connect(url: str) -> None:
    with create_engine(url).connect() as connection:
        connection.execute(text("SELECT 1"))


async def connect_by_asyncpg(port: int) -> None:
    url = f"postgresql+asyncpg://nobody@127.0.0.1:{port}/nothing"
    async with create_async_engine(url).connect():
        pass


def test_server_that_is_not_there(unused_tcp_port: int) -> None:
    """Nobody answers, who could send a code: it may be about to start."""
    with pytest.raises(OperationalError) as raised:
        connect(f"postgresql+psycopg://nobody@127.0.0.1:{unused_tcp_port}/nothing")

    assert is_retryable(raised.value)


@pytest.mark.anyio
async def test_server_that_is_not_there_for_asyncpg(unused_tcp_port: int) -> None:
    """asyncpg lets the operating system's own error through."""
    with pytest.raises((OSError, DBAPIError)) as raised:
        await connect_by_asyncpg(unused_tcp_port)

    assert is_retryable(raised.value)


@pytest.mark.parametrize(
    "error, expected",
    [
        (ConnectionRefusedError("nobody listens"), True),
        (TimeoutError("nobody answers"), True),
        (socket.gaierror(socket.EAI_AGAIN, "nobody knows the name"), True),
        (OSError(errno.EHOSTUNREACH, "nobody is there"), True),
        # A socket in the file system, which is not there yet, has no name in the error.
        (FileNotFoundError(errno.ENOENT, "nobody has made it"), True),
        (FileNotFoundError(errno.ENOENT, "no file", "/run/secrets/password"), False),
        (PermissionError(errno.EACCES, "not allowed"), False),
        (ssl.SSLCertVerificationError(1, "nobody that is known"), False),
        (ConnectionError("PostgreSQL server rejected SSL upgrade"), False),
        # What asyncio makes of several addresses of a host.
        (OSError("Multiple exceptions: [Errno 111] refused, [Errno 111] too"), True),
        (OSError("of a hook of the engine's own"), False),
        # Hosts have answered, and none of them may be written to.
        (asyncpg.exceptions.TargetServerAttributeNotMatched("by host 1"), True),
        (asyncpg.exceptions.ClientConfigurationError("no such option"), False),
        (LookupError("in a hook of the engine's own"), False),
    ],
    ids=repr,
)
def test_error_of_connecting(
    make_engine: Callable[..., Engine], error: Exception, expected: bool
) -> None:
    """It is told by where it arose, as these have no code, and no class in common."""
    engine = make_engine()

    @event.listens_for(engine, "do_connect")
    def fail(*args: Any) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        engine.connect()

    assert is_retryable(raised.value) is expected
    error.__traceback__ = None
    assert not is_retryable(error)


@pytest.mark.parametrize(
    "told, expected",
    [
        ("server at 127.0.0.1 failed: Connection refused", True),
        ("server at 127.0.0.1 failed: FATAL:  sorry, too many clients already", True),
        ("failed: FATAL:  the database system is starting up", True),
        ('failed: FATAL:  password authentication failed for user "x"', False),
        ('failed: FATAL:  database "x" does not exist', False),
        ('failed: FATAL:  no pg_hba.conf entry for host "x"', False),
        ("failed: fe_sendauth: no password supplied", False),
        ('failed: FATAL:  role "x" is not permitted to log in', False),
        ('failed: FATAL:  permission denied for database "x"', False),
        ("failed: server does not support SSL, but SSL was required", False),
        ("failed: SSL error: certificate verify failed", False),
    ],
)
def test_text_of_psycopg(
    make_engine: Callable[..., Engine], told: str, expected: bool
) -> None:
    """It has no code where it could not connect, and libpq's text instead."""
    engine = make_engine()

    @event.listens_for(engine, "do_connect")
    def fail(*args: Any) -> None:
        raise engine.dialect.loaded_dbapi.OperationalError(told)

    with pytest.raises(OperationalError) as raised:
        engine.connect()

    assert is_retryable(raised.value) is expected


def test_option_that_there_is_not() -> None:
    """Nobody was asked, and nobody will be the next time."""
    engine = create_engine(
        "postgresql+psycopg://nobody@127.0.0.1/nothing", connect_args={"nothing": "1"}
    )
    with pytest.raises(DBAPIError) as raised:
        engine.connect()

    assert not is_retryable(raised.value)


@pytest.mark.on("postgresql")
@pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"database": "nothing"}])
def test_wrong_configuration(engine: Engine, wrong: dict[str, str]) -> None:
    """A server has answered, by each driver, and will answer the same again."""
    url = engine.url.set(username="nobody", **wrong)
    with pytest.raises(DBAPIError) as raised:
        create_engine(url).connect()

    assert not is_retryable(raised.value)


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


def test_server_that_closes_in_the_handshake() -> None:
    """The connection is lost, and not in COMMIT: there was none to commit on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = Thread(target=lambda: listener.accept()[0].close())
        thread.start()

        with (
            pytest.raises(OperationalError) as raised,
            session_scope(
                create_engine(f"mysql+pymysql://nobody@127.0.0.1:{port}/nothing")
            ) as session,
        ):
            session.add(Note(text="never sent"))
        thread.join()

    assert raised.value.connection_invalidated
    assert not isinstance(raised.value, OutcomeUnknown)
    assert is_retryable(raised.value)


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
