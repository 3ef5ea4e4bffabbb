"""The databases that are measured on, and the two tables in them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

ROOT = Path(__file__).parents[1]


class Base(DeclarativeBase):
    pass


class Item(Base):
    """What is read: there is one, of the id 1."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    """What is written."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


@dataclass(frozen=True)
class Database:
    """A database that has the tables, and its URL for either kind of engine."""

    name: str
    sync_url: str
    async_url: str

    def engine(self, **options: Any) -> Engine:
        engine = create_engine(self.sync_url, **options)
        return self._with_pragmas(engine)

    def async_engine(self, **options: Any) -> AsyncEngine:
        engine = create_async_engine(self.async_url, **options)
        self._with_pragmas(engine.sync_engine)
        return engine

    def engine_for(self, session: str, **options: Any) -> Any:
        """Return an engine for one kind of session, "sync" or "async"."""
        if session == "sync":
            return self.engine(**options)
        return self.async_engine(**options)

    def prepare(self) -> None:
        """Make the tables, and the item."""
        engine = self.engine()
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add(Item(id=1, name="anvil"))
        engine.dispose()

    def _with_pragmas(self, engine: Engine) -> Engine:
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", set_pragmas)
        return engine


def set_pragmas(connection: Any, record: object) -> None:
    """Have SQLite as a service has it: readers and a writer at the same time."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


@contextmanager
def sqlite() -> Iterator[Database]:
    """Yield a database in a file."""
    # The server that has just been stopped may still be at its files.
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        path = Path(directory) / "benchmarks.db"
        database = Database(
            "SQLite", f"sqlite:///{path}", f"sqlite+aiosqlite:///{path}"
        )
        database.prepare()
        yield database


@contextmanager
def postgresql() -> Iterator[Database]:
    """Yield a database of a server that is started for it."""
    # The tests' launcher: it is on the path of pytest alone.
    sys.path.append(str(ROOT / "tests"))
    from postgresql import postgresql as starting  # type: ignore[import-not-found]

    with starting() as server, server.database() as place:
        psycopg, asyncpg = (
            place.url(driver).render_as_string(hide_password=False)
            for driver in ("psycopg", "asyncpg")
        )
        database = Database("PostgreSQL", psycopg, asyncpg)
        database.prepare()
        yield database
