"""Engines on real SQLite files, each seen fully checked in when its test ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from models import Base


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Return a factory of engines on one database file, with the tables created."""
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        engine = create_engine(f"sqlite:///{tmp_path / 'test.db'}", **options)
        engines.append(engine)
        Base.metadata.create_all(engine)
        return engine

    yield make
    checked_out = [engine.pool.checkedout() for engine in engines]
    for engine in engines:
        engine.dispose()
    assert checked_out == [0] * len(engines)


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_size=2, max_overflow=0, pool_timeout=5)


@pytest.fixture
async def make_async_engine(tmp_path: Path, make_engine: Callable[..., Engine]) -> Any:
    """Return a factory of async engines on the database file of `make_engine`."""
    engines: list[AsyncEngine] = []
    make_engine()

    def make(**options: Any) -> AsyncEngine:
        url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
        engines.append(create_async_engine(url, **options))
        return engines[-1]

    yield make
    checked_out = [engine.pool.checkedout() for engine in engines]
    for engine in engines:
        await engine.dispose()
    assert checked_out == [0] * len(engines)


@pytest.fixture
async def async_engine(make_async_engine: Callable[..., AsyncEngine]) -> AsyncEngine:
    return make_async_engine(pool_size=2, max_overflow=0, pool_timeout=5)
