"""Engines on which each statement is committed by itself, by each way to say so."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

Make = Callable[..., Any]
# How drivers are told; asyncpg is not, by an argument.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pysqlite": {"isolation_level": None},
    "aiosqlite": {"isolation_level": None},
    "psycopg": {"autocommit": True},
    "pymysql": {"autocommit": 1},
    "asyncmy": {"autocommit": True},
}


def by_sqlalchemy(make: Make) -> Any:
    return make(isolation_level="AUTOCOMMIT")


def by_arguments(make: Make) -> Any:
    driver = make().dialect.driver
    if driver not in ARGUMENTS:
        return by_event(make)
    return make(connect_args=ARGUMENTS[driver])


def by_creator(make: Make) -> Any:
    engine = make()
    dialect = engine.dialect
    arguments, options = dialect.create_connect_args(engine.url)
    options |= ARGUMENTS[dialect.driver]
    return make(creator=lambda: dialect.connect(*arguments, **options))


def by_event(make: Make) -> Any:
    engine = make()
    name = engine.dialect.name

    def tell(driver_connection: Any, record: object) -> None:
        if name == "sqlite":
            driver_connection.isolation_level = None
        elif name == "postgresql":
            driver_connection.autocommit = True
        else:
            driver_connection.autocommit(True)

    event.listen(getattr(engine, "sync_engine", engine), "connect", tell)
    return engine


each_way = pytest.mark.parametrize(
    "way", [by_sqlalchemy, by_arguments, by_event], ids=lambda way: way.__name__
)


def begun_by_a_listener(make: Make, way: Any) -> Any:
    """Return an engine in autocommit, where a listener begins each transaction."""
    engine = way(make)
    sync_engine = getattr(engine, "sync_engine", engine)
    event.listen(
        sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN")
    )
    return engine
