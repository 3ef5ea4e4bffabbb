"""Engines on real databases: SQLite files, and servers where a test is on one."""

import gc
import os
import re
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from backends import (
    DRIVERS,
    Backend,
    emptied,
    on_postgresql,
    on_sqlite,
    parametrize,
    set_pragmas,
)
from contract import HABITATS, Habitat
from postgresql import NoPostgreSQL, PostgreSQL, postgresql

EXAMPLES = Path(__file__).parents[1] / "examples"

settings.register_profile(
    "safesession",
    # And not Hypothesis's profile for CI, which tries the same again and again.
    settings.get_profile("default"),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("safesession")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "on(*databases): run on these, and not on SQLite"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests have run on a server: .ci/run insists that some have."""
    ids = [report.nodeid for report in terminalreporter.getreports("passed")]
    counts = {
        driver: sum(bool(re.search(rf"[\[-]{driver}[\]-]", id_)) for id_ in ids)
        for driver in DRIVERS["postgresql"]
    }
    told = ", ".join(f"{driver}: {count}" for driver, count in counts.items())
    terminalreporter.write_line(f"Passed on PostgreSQL, by {told}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc)


@pytest.fixture(scope="session")
def postgresql_database() -> Iterator[PostgreSQL]:
    """Return a database with the tables in it, on a server for each worker."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgresql())
        except NoPostgreSQL as error:
            # Where nobody looks, a test that does not run is a failure.
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no PostgreSQL: {error}")
        database = stack.enter_context(server.database())
        on_postgresql(database).create_tables()
        yield database


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Return the database of the test, with no rows in it."""
    driver = getattr(request, "param", "sqlite")
    if driver == "sqlite":
        backend = on_sqlite(tmp_path)
        backend.create_tables()
        yield backend
        return
    database: PostgreSQL = request.getfixturevalue("postgresql_database")
    with emptied(on_postgresql(database, driver)) as backend:
        yield backend


@pytest.fixture
def make_engine(backend: Backend) -> Iterator[Callable[..., Engine]]:
    """Return a factory of engines on the test's database."""
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        engines.append(backend.engine(**options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_size=2, max_overflow=0, pool_timeout=5)


@pytest.fixture
async def made_async_engines(anyio_backend: str) -> AsyncIterator[list[AsyncEngine]]:
    """Return a list of engines to dispose of, in the loop that the test has run in."""
    engines: list[AsyncEngine] = []
    yield engines
    for engine in engines:
        await engine.dispose()


@pytest.fixture
def make_async_engine(
    backend: Backend, made_async_engines: list[AsyncEngine]
) -> Callable[..., AsyncEngine]:
    """Return a factory of async engines on the test's database."""

    def make(**options: Any) -> AsyncEngine:
        made_async_engines.append(backend.async_engine(**options))
        return made_async_engines[-1]

    return make


@pytest.fixture
def async_engine(make_async_engine: Callable[..., AsyncEngine]) -> AsyncEngine:
    return make_async_engine(pool_size=2, max_overflow=0, pool_timeout=5)


@pytest.fixture
def observer(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(poolclass=NullPool)


@pytest.fixture
def habitat(
    request: pytest.FixtureRequest,
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., AsyncEngine],
) -> Iterator[Habitat]:
    make = make_async_engine if "Async" in request.param else make_engine
    engine = make(pool_size=1, max_overflow=0, pool_timeout=2)
    kinds = {kind.__name__: kind for kind in HABITATS}
    habitat: Habitat = kinds[request.param](engine)
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
