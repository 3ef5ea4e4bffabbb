"""Connections in a transaction that ends in a rollback, and sessions joined to it.

A session of `joined_sessionmaker` lives in a SAVEPOINT of that transaction, so that
what it commits and rolls back is its own, and nothing of it is left.
"""

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, event

from safesession._binds import describe
from safesession._opening import SYNC, Flavour
from safesession._sqlite import begin_sqlite
from safesession.errors import InvalidArgument, ScopeMisuse


class Joined(NamedTuple):
    """What the fixtures of one test give."""

    connection: Any
    sessionmaker: Any
    session: Any


@dataclass(frozen=True, slots=True)
class Join:
    """How the sessions of a bind become joined ones."""

    fixture: str
    flavour: Flavour
    options: Mapping[str, Any]

    def engine(self, bind: Any) -> Any:
        """Return the engine of a bind, or raise."""
        engine = bind
        if isinstance(bind, self.flavour.sessionmaker):
            engine = bind.kw.get("bind")
            if bind.kw.get("binds"):
                raise InvalidArgument(
                    f"{self.fixture}() returned a sessionmaker with binds, and one "
                    "transaction is of one database. Return a sessionmaker with a bind."
                )
        if not isinstance(engine, self.flavour.engine):
            raise InvalidArgument(
                f"{self.fixture}() returned {describe(bind)}, without an engine to "
                f"connect to. Return an instance of {self.flavour.engine.__name__}, or "
                f"a {self.flavour.sessionmaker.__name__} bound to one."
            )
        return engine

    def sessionmaker(self, bind: Any, connection: Any) -> Any:
        """Return a sessionmaker as configured, but for what its sessions join."""
        options = dict(self.options)
        if isinstance(bind, self.flavour.sessionmaker):
            options = bind.kw | {"class_": bind.class_}
        options |= {"bind": connection, "join_transaction_mode": "create_savepoint"}
        return self.flavour.sessionmaker(**options)


@contextmanager
def joined(bind: Any) -> Generator[Joined]:
    """Connect, begin, and roll back in the end."""
    join = Join("safesession_bind", SYNC, {})
    with join.engine(bind).connect() as connection:
        begin(connection)
        try:
            sessionmaker = join.sessionmaker(bind, connection)
            with sessionmaker() as session:
                yield Joined(connection, sessionmaker, session)
        finally:
            connection.rollback()


@asynccontextmanager
async def async_joined(bind: Any) -> AsyncGenerator[Joined]:
    """Connect, begin, and roll back in the end."""
    from safesession._aio import ASYNC

    join = Join("safesession_async_bind", ASYNC, {"expire_on_commit": False})
    async with join.engine(bind).connect() as connection:
        await connection.run_sync(begin)
        try:
            sessionmaker = join.sessionmaker(bind, connection)
            async with sessionmaker() as session:
                yield Joined(connection, sessionmaker, session)
        finally:
            await connection.rollback()


def begin(connection: Connection) -> None:
    """Begin a transaction that is not to be committed."""
    connection.begin()
    begin_sqlite(connection)
    # A session that is given the connection itself joins a SAVEPOINT by one of its own.
    connection.begin_nested()
    event.listen(connection, "commit", _refuse)


def _refuse(connection: Connection) -> None:
    raise ScopeMisuse(
        "The transaction of a joined connection ends in a rollback, and commit() was "
        "called on the connection. Commit a session of joined_sessionmaker, or a "
        "savepoint: connection.begin_nested()."
    )
