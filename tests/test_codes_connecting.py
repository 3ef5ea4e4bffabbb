"""Which errors of connecting say that it may succeed when it is tried again."""

import errno
import socket
import ssl
from collections.abc import Callable
from threading import Thread
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from models import Note
from safesession import OutcomeUnknown, session_scope
from safesession.retry import is_retryable


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
