"""The databases that tests run on: SQLite, and others where the mark `on` says so."""

import os
from collections.abc import Iterable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from contract import HABITATS
from mariadb import MariaDB
from models import Base
from postgresql import NoPostgreSQL, PostgreSQL
from processes import NotInstalled

S = TypeVar("S")

DRIVERS = {
    "sqlite": ["sqlite"],
    "postgresql": ["psycopg", "asyncpg"],
    "mariadb": ["pymysql", "asyncmy"],
}
# Not all sessions of nox have the time for all.
WANTED = os.environ.get("SAFESESSION_TEST_ON", ",".join(DRIVERS)).split(",")
# psycopg serves engines of both kinds, and the others' sync engines.
ASYNC_ALONE = {"asyncpg", "asyncmy"}
SYNC_ALONE = {"pymysql"}
# MariaDB checks no constraint at COMMIT.
with_deferred_constraints = pytest.mark.on("sqlite", "postgresql")

# The fixtures that come in kinds, of which some are on an async engine.
KINDS = {
    "habitat": [kind.__name__ for kind in HABITATS],
    "database": ["sync_session", "async_session"],
    "nested": ["Nested", "AsyncNested"],
}


@dataclass(frozen=True)
class Backend:
    """A database with the tables in it, for engines of both kinds."""

    url: URL
    async_url: URL

    def engine(self, **options: Any) -> Engine:
        return engine_on(self.url, **options)

    def async_engine(self, **options: Any) -> AsyncEngine:
        engine = create_async_engine(self.async_url, **options)
        listen(engine.sync_engine)
        return engine

    def create_tables(self) -> None:
        engine = self.engine(poolclass=NullPool)
        Base.metadata.create_all(engine)


def engine_on(url: URL, **options: Any) -> Engine:
    engine = create_engine(url, **options)
    listen(engine)
    return engine


def impatient(engine: Engine) -> Engine:
    """Return another engine there, which hardly waits for a lock."""
    connect_args: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": 0.05},
        "postgresql": {"options": "-c lock_timeout=50"},
        # In seconds.
        "mariadb": {"init_command": "SET innodb_lock_wait_timeout = 1"},
    }
    return engine_on(engine.url, connect_args=connect_args[engine.dialect.name])


def listen(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", set_pragmas)


def on_sqlite(directory: Path) -> Backend:
    path = directory / "test.db"
    return Backend(
        make_url(f"sqlite:///{path}"), make_url(f"sqlite+aiosqlite:///{path}")
    )


def on_postgresql(database: PostgreSQL, driver: str = "psycopg") -> Backend:
    return Backend(database.url("psycopg"), database.url(driver))


def on_mariadb(server: MariaDB) -> Backend:
    return Backend(server.url("pymysql"), server.url("asyncmy"))


@contextmanager
def started(server: AbstractContextManager[S]) -> Iterator[S]:
    """Start a server, or skip the test where there is none to be started."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except (NoPostgreSQL, NotInstalled) as error:
            # Where nobody looks, a test that does not run is a failure.
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no server: {error}")
        yield running


@contextmanager
def emptied(backend: Backend) -> Iterator[Backend]:
    """Give a server's database without rows; see that nobody is in a transaction after.

    The engines of the test are still open then: what is at rest in a pool is at rest
    on the server, too.
    """
    engine = backend.engine(poolclass=NullPool)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer:
        if engine.dialect.name == "mariadb":
            empty_mariadb(observer)
            yield backend
            # They are in use until the transaction ends that has used them.
            observer.exec_driver_sql("LOCK TABLES note WRITE, reply WRITE")
            return
        observer.exec_driver_sql("SET lock_timeout = '10s'")
        # What a test has left that failed is not to fail others.
        observer.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        observer.exec_driver_sql("TRUNCATE note, reply RESTART IDENTITY")
        yield backend
        wait_until(observer, "NOT EXISTS (SELECT FROM others WHERE state <> 'idle')")


def empty_mariadb(observer: Connection) -> None:
    others = observer.exec_driver_sql(
        "SELECT id FROM information_schema.processlist "
        "WHERE db = database() AND id <> connection_id()"
    )
    for id_ in others.scalars().all():
        # It may have ended meanwhile.
        with suppress(OperationalError):
            observer.exec_driver_sql(f"KILL CONNECTION {id_}")
    # A table that another refers to is not emptied by TRUNCATE otherwise.
    observer.exec_driver_sql("SET foreign_key_checks = 0, lock_wait_timeout = 10")
    for table in Base.metadata.tables:
        observer.exec_driver_sql(f"TRUNCATE {table}")


def wait_until_mariadb(observer: Connection, condition: str) -> None:
    """Wait until something is so on the server.

    InnoDB has no news for who asks again within a tenth of a second.
    """
    observer.exec_driver_sql(f"""
        BEGIN NOT ATOMIC
            DECLARE so BOOLEAN DEFAULT FALSE;
            waiting: FOR i IN 1 .. 100 DO
                SET so = ({condition});
                IF so THEN LEAVE waiting; END IF;
                DO SLEEP(0.11);
            END FOR waiting;
            IF NOT so THEN
                SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'It has not come to be so';
            END IF;
        END
    """)


def wait_until(observer: Connection, condition: str) -> None:
    """Wait until something is so on the server, of its `others` or of anything."""
    observer.exec_driver_sql(f"""
        DO $$ BEGIN
            FOR i IN 1 .. 1000 LOOP
                PERFORM pg_stat_clear_snapshot();
                IF (
                    WITH others AS (
                        SELECT * FROM pg_stat_activity
                        WHERE datname = current_database()
                        AND backend_type = 'client backend'
                        AND pid <> pg_backend_pid()
                    )
                    SELECT {condition}
                ) THEN RETURN; END IF;
                PERFORM pg_sleep(0.01);
            END LOOP;
            RAISE 'It has not come to be so: {condition.replace("'", "''")}';
        END $$
    """)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Run a test on each driver of its databases, for each of what is to be held so."""
    mark = metafunc.definition.get_closest_marker("on")
    databases: tuple[str, ...] = mark.args if mark else ("sqlite",)
    drivers = [
        driver for name in databases if name in WANTED for driver in DRIVERS[name]
    ]
    names = set(metafunc.fixturenames)
    if held := names & KINDS.keys():
        (name,) = held
        _parametrize_pairs(metafunc, name, KINDS[name], drivers)
    elif mark and names & {"make_engine", "make_async_engine"}:
        is_async = "make_async_engine" in names
        metafunc.parametrize("backend", list(_fit(drivers, is_async)), indirect=True)


def _parametrize_pairs(
    metafunc: pytest.Metafunc, name: str, kinds: list[str], drivers: list[str]
) -> None:
    pairs = []
    for kind in kinds:
        for driver in _fit(drivers, "async" in kind.lower()):
            id_ = kind if driver == "sqlite" else f"{kind}-{driver}"
            pairs.append(pytest.param(kind, driver, id=id_))
    metafunc.parametrize(f"{name}, backend", pairs, indirect=True)


def _fit(drivers: Iterable[str], is_async: bool) -> Iterator[str]:
    others = SYNC_ALONE if is_async else ASYNC_ALONE
    return (driver for driver in drivers if driver not in others)


def set_pragmas(dbapi_connection: Any, record: Any) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # No test outlives the machine.
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
