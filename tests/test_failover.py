"""Servers that crash: a replica takes over for one, or it comes back."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only

from backends import WANTED, Backend, engine_on, on_postgresql
from contract import Habitat, left_by, left_by_async
from load import TABLE, UNKNOWN, Load, writing
from models import Note, stored
from postgresql import NoPostgreSQL, Replicated, Server, replicated
from safesession import async_session_scope, session_scope
from safesession.retry import (
    async_run_in_session,
    is_retryable,
    run_in_session,
)
from test_postgresql import Writes, sqlstate_of

pytestmark = [pytest.mark.on("postgresql"), pytest.mark.once]


def start() -> Iterator[Replicated]:
    """Start a primary and a replica of it, with the tables in them."""
    if "postgresql" not in WANTED:
        pytest.skip("SAFESESSION_TEST_ON has no PostgreSQL")
    try:
        with replicated() as servers:
            on_postgresql(servers.primary).create_tables()
            yield servers
    except NoPostgreSQL as error:
        # Where nobody looks, a test that does not run is a failure.
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL: {error}")


# A failover is for once.
servers = pytest.fixture(start, scope="module", name="servers")
servers_of_the_test = pytest.fixture(start, name="servers_of_the_test")


def direct(server: Server) -> Engine:
    return engine_on(server.url(), poolclass=NullPool)


@pytest.fixture
def observer(servers: Replicated) -> Engine:
    engine = direct(servers.primary)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE note, reply"))
    return engine


@pytest.fixture
def backend(request: pytest.FixtureRequest, servers: Replicated) -> Backend:
    """Return the replica: what is committed on the primary is found there."""
    return on_postgresql(servers.replica, request.param)


def test_replica_refuses_a_write(habitat: Habitat, observer: Engine) -> None:
    """It is an error of the database's, which another attempt would not change."""
    writes = Writes()

    left = habitat.run(writes)

    assert isinstance(left, DBAPIError)
    assert sqlstate_of(left) == "25006"
    assert not left.connection_invalidated
    assert not is_retryable(left)
    assert habitat.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert stored(observer) == []


def test_replica_is_read(habitat: Habitat, observer: Engine) -> None:
    """A session that is read_only is at home there."""
    with session_scope(observer) as session:
        session.add(Note(text="kept"))
    found: list[str] = []

    def read(session: Session) -> None:
        found.extend(session.scalars(select(Note.text)))

    assert habitat.run(read, read_only=True) is None
    assert found == ["kept"]
    assert habitat.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def look(session: Session) -> None:
    session.execute(select(Note))


async def left_by_two(engine: Any) -> list[BaseException | None]:
    """Use two connections at the same time, and return what has left their scopes."""
    is_async = isinstance(engine, AsyncEngine)
    left: list[BaseException | None] = []

    def use_another(session: Session) -> None:
        session.connection()
        if is_async:
            scope = left_by_async(async_session_scope(engine), look)
            left.append(await_only(scope))
        else:
            left.append(left_by(session_scope(engine), look))
        look(session)

    if is_async:
        left.append(await left_by_async(async_session_scope(engine), use_another))
    else:
        left.append(left_by(session_scope(engine), use_another))
    return left


async def run(engine: Any, work: Callable[[Session], None]) -> None:
    if isinstance(engine, AsyncEngine):
        await async_run_in_session(engine, lambda session: session.run_sync(work))
    else:
        await asyncio.to_thread(run_in_session, engine, work)


@pytest.fixture
async def make(anyio_backend: str) -> AsyncIterator[Callable[..., Any]]:
    """Return a factory of engines, which are async where they can be."""
    engines: list[Any] = []

    def make(url: URL, is_async: bool, **options: Any) -> Any:
        create = create_async_engine if is_async else create_engine
        engines.append(create(url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        disposed = engine.dispose()
        if disposed is not None:
            await disposed


each_driver = pytest.mark.parametrize(
    "driver, is_async", [("psycopg", False), ("psycopg", True), ("asyncpg", True)]
)


@pytest.mark.anyio
@each_driver
async def test_server_that_comes_back(
    servers: Replicated,
    observer: Engine,
    make: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    driver: str,
    is_async: bool,
) -> None:
    """With pool_pre_ping nobody notices, nor by another attempt; else all are told."""
    url = servers.primary.url(driver)
    pinging = make(url, is_async, pool_pre_ping=True)
    plain, other = make(url, is_async), make(url, is_async)
    for engine in (pinging, plain, other):
        assert await left_by_two(engine) == [None, None]

    servers.primary.stop()
    servers.primary.start()

    assert await left_by_two(pinging) == [None, None]
    told = await left_by_two(plain)
    assert [is_retryable(error) for error in told if error] == [True, True]
    assert await left_by_two(plain) == [None, None]
    await run(other, lambda session: session.add(Note(text="kept")))
    assert retries(caplog) == 1
    assert stored(observer) == ["kept"]


def retries(caplog: pytest.LogCaptureFixture) -> int:
    return sum(each.startswith("safesession: attempt") for each in caplog.messages)


@pytest.mark.anyio
@each_driver
async def test_failover(
    servers_of_the_test: Replicated,
    make: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
    driver: str,
    is_async: bool,
) -> None:
    """Of what clients were told is written nothing is lost, and nothing is there twice.

    A COMMIT is answered when the replica has it: so it is by synchronous_standby_names.
    """
    servers = servers_of_the_test
    engine = make(servers.url(driver), is_async, pool_size=8)
    with direct(servers.primary).begin() as connection:
        connection.execute(TABLE)
    async with Load(writing(engine, is_async and driver == "psycopg")) as load:
        await load.until(200)
        await asyncio.to_thread(servers.primary.stop)
        await asyncio.to_thread(servers.replica.promote)
        await load.until(200)

    told = load.statuses
    with direct(servers.replica).connect() as connection:
        found = Counter(connection.scalars(text("SELECT number FROM numbered")))
    statuses = Counter(told.values())
    lost = [number for number in told if told[number] == 200 and not found[number]]
    figures = {
        "requests": len(told),
        "lost commits": len(lost),
        "outcomes unknown": statuses[UNKNOWN],
        "of which committed": sum(found[n] for n in told if told[n] == UNKNOWN),
        "errors told": statuses[503],
        "retries": retries(caplog),
    }
    record_property(f"failover by {driver}", figures)
    with capsys.disabled():
        sys.stdout.write(f"\nFailover by {driver}: {figures}\n")
    assert statuses.keys() <= {200, UNKNOWN, 503}
    assert lost == []
    assert set(found.values()) == {1}
    assert found.keys() <= {number for number in told if told[number] != 503}
