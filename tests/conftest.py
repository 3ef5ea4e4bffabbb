"""Engines on real databases: SQLite files, and servers where a test is on one."""

import asyncio
import gc
import re
import sys
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
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
    WANTED,
    Backend,
    emptied,
    on_mariadb,
    on_postgresql,
    on_sqlite,
    parametrize,
    set_pragmas,
    started,
)
from contract import HABITATS, Habitat
from ended import end
from mariadb import MariaDB, mariadb
from postgresql import PostgreSQL, postgresql

if "mariadb" not in WANTED:
    # They belong to the same session of nox.
    collect_ignore = ["test_galera.py", "test_pgbouncer.py"]

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
    passed = terminalreporter.getreports("passed")
    told = []
    for name in (*DRIVERS["postgresql"], *DRIVERS["mariadb"], "galera", "pgbouncer"):
        pattern = re.compile(rf"[\[-]{name}[\]-]|\btest_{name}\.py")
        count = sum(bool(pattern.search(report.nodeid)) for report in passed)
        told.append(f"{name}: {count}")
    terminalreporter.write_line(f"Passed on servers, by {', '.join(told)}")
    blocks = [
        value
        for report in passed
        for name, value in report.user_properties
        if name == "blocks"
    ]
    if blocks:
        terminalreporter.write_line(
            f"Blocks run: {sum(blocks)}, of {len(blocks)} documents"
        )
    for report in passed:
        if figures := dict(report.user_properties).get("figures"):
            terminalreporter.write_line(f"{report.nodeid}: {figures}")
    tried: Counter[str] = Counter()
    for report in passed:
        tried.update(dict(report.user_properties).get("tried", {}))
    if tried:
        terminalreporter.write_line(f"Tried by enumeration: {dict(tried)}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc)


@pytest.fixture
def tried() -> Counter[str]:
    """Return what a test has tried, by kind, to be counted; the end of a run tells."""
    return Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: Any, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and "tried" in item.funcargs:
        # xdist passes on what is made of Python's own classes.
        report.user_properties.append(("tried", dict(item.funcargs["tried"])))
    return report


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Leave what is there for good out of each collection of garbage."""
    with warnings.catch_warnings():
        # Of a database that is not closed: it is not known any more whose it was.
        warnings.simplefilter("ignore")
        gc.collect()
    # Each module anew, as the kit thaws it.
    gc.freeze()


@pytest.fixture(scope="session")
def postgresql_database() -> Iterator[PostgreSQL]:
    """Return a database with the tables in it, on a server for each worker."""
    with started(postgresql()) as server, server.database() as database:
        on_postgresql(database).create_tables()
        yield database


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """Return a server with the tables in its database, for each worker."""
    with started(mariadb()) as server:
        on_mariadb(server).create_tables()
        yield server


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Return the database of the test, with no rows in it."""
    driver = getattr(request, "param", "sqlite")
    if driver == "sqlite":
        backend = on_sqlite(tmp_path)
        backend.create_tables()
        yield backend
        return
    if driver in DRIVERS["mariadb"]:
        backend = on_mariadb(request.getfixturevalue("mariadb_server"))
    else:
        database: PostgreSQL = request.getfixturevalue("postgresql_database")
        backend = on_postgresql(database, driver)
    with emptied(backend):
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
    await end_closing()


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


async def end_closing() -> None:
    """End what SQLAlchemy has left to close connections of aiosqlite.

    The loop cancels it once as it ends, and waits. If a thread has not yet closed the
    connection then, aiosqlite goes on to wait for that thread to end, and asks it to
    when it has: the loop would never end.
    """
    name = "_terminate_graceful_close"
    tasks = asyncio.all_tasks()
    await end(task for task in tasks if task.get_coro().__name__ == name)


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
