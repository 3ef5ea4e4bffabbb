"""What another connection does to a session on MariaDB, and what comes of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from backends import wait_until_mariadb
from models import Note

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


def code_of(error: DBAPIError) -> object:
    assert error.orig is not None
    return error.orig.args[0]


def change(session: Session | Connection, id_: int) -> None:
    session.execute(text(f"UPDATE note SET text = concat(text, '!') WHERE id = {id_}"))


@contextmanager
def weightier(observer: Engine) -> Iterator[Connection]:
    """Be in a transaction that has done more than another: InnoDB ends the lighter."""
    with observer.connect() as connection:
        for id_ in range(200, 300):
            connection.execute(text(f"INSERT INTO note VALUES ({id_}, 'rival {id_}')"))
        yield connection
        connection.rollback()
