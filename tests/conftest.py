"""Engines on real SQLite files."""

import asyncio
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from contract import HABITATS, Habitat
from models import Base

EXAMPLES = Path(__file__).parents[1] / "examples"

settings.register_profile(
    "safesession",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("safesession")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def make_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """Return a factory of engines on one database file, with the tables created."""
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        engine = create_engine(f"sqlite:///{tmp_path / 'test.db'}", **options)
        event.listen(engine, "connect", set_pragmas)
        engines.append(engine)
        Base.metadata.create_all(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_size=2, max_overflow=0, pool_timeout=5)


@pytest.fixture
def make_async_engine(
    tmp_path: Path, make_engine: Callable[..., Engine]
) -> Iterator[Callable[..., AsyncEngine]]:
    """Return a factory of async engines on the database file of `make_engine`."""
    engines: list[AsyncEngine] = []
    make_engine()

    def make(**options: Any) -> AsyncEngine:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path / 'test.db'}", **options
        )
        event.listen(engine.sync_engine, "connect", set_pragmas)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        asyncio.run(engine.dispose())


@pytest.fixture
def async_engine(make_async_engine: Callable[..., AsyncEngine]) -> AsyncEngine:
    return make_async_engine(pool_size=2, max_overflow=0, pool_timeout=5)


@pytest.fixture
def observer(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(poolclass=NullPool)


@pytest.fixture(params=HABITATS, ids=lambda kind: kind.__name__)
def habitat(
    request: pytest.FixtureRequest,
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., AsyncEngine],
) -> Iterator[Habitat]:
    make = make_async_engine if "Async" in request.param.__name__ else make_engine
    engine = make(pool_size=1, max_overflow=0, pool_timeout=2)
    habitat: Habitat = request.param(engine)
    # SQLAlchemy's first connection is special: it is asked for its abilities.
    habitat.run(lambda session: session.connection() and None)
    gc.disable()
    yield habitat
    gc.enable()
    habitat.close()


@pytest.fixture
def factories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """Import the example, in a directory of its own."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    import factories

    event.listen(factories.engine, "connect", set_pragmas)
    yield factories
    factories.engine.dispose()
    del sys.modules["factories"]


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what the tests of a project have left, for those here not to find it.

    Asked for before `pytester`, which keeps those tests until its own end.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A connection that is collected goes back to its pool, which is garbage then.
        gc.collect()
        gc.collect()


def set_pragmas(dbapi_connection: Any, record: Any) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # No test outlives the machine.
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.close()
