"""Many scopes on the few connections that PgBouncer gives to one after the other."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from backends import emptied, on_postgresql, started, wait_until
from contract import HABITATS, Habitat, assert_nothing_left, left_by, left_by_async
from models import Note, stored
from pgbouncer import SERVER_CONNECTIONS, UNPREPARED, pgbouncer
from postgresql import PostgreSQL
from safesession import async_session_scope, session_scope

SCOPES = 100
KINDS = [
    (kind, driver)
    for kind in HABITATS
    for driver in UNPREPARED
    # asyncpg is for async engines alone.
    if driver == "psycopg" or "Async" in kind.__name__
]


@pytest.fixture
def observer(postgresql_database: PostgreSQL) -> Iterator[Engine]:
    """Return an engine on the server itself, past PgBouncer."""
    with emptied(on_postgresql(postgresql_database)) as backend:
        yield backend.engine(poolclass=NullPool)


@pytest.fixture
def make(
    postgresql_database: PostgreSQL, observer: Engine
) -> Iterator[Callable[..., Any]]:
    """Return a factory of engines on PgBouncer; see that nobody is in a transaction."""

    def make(driver: str, is_async: bool, **options: Any) -> Any:
        create: Any = create_async_engine if is_async else create_engine
        options = {"connect_args": UNPREPARED[driver]} | options
        return create(pooled.url(driver), **options)

    with started(pgbouncer(postgresql_database)) as pooled:
        yield make
        with observer.connect() as connection:
            at_rest = "NOT EXISTS (SELECT FROM others WHERE state <> 'idle')"
            wait_until(connection, at_rest)


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0].__name__}-{kind[1]}")
def through(request: pytest.FixtureRequest, make: Callable[..., Any]) -> Iterator[Any]:
    """Return one of the ways to hold a session, on a driver."""
    kind, driver = request.param
    habitat: Habitat = kind(make(driver, "Async" in kind.__name__, pool_size=1))
    yield habitat
    habitat.close()


class Writes:
    """Writes a note, and has `error` raised after it."""

    def __init__(self, text: str, error: BaseException | None = None) -> None:
        self._text = text
        self._error = error

    def __call__(self, session: Session) -> BaseException | None:
        self.session = session
        session.add(Note(text=self._text))
        session.flush()
        return self._error


@pytest.mark.parametrize("error", [None, LookupError("the cause")])
def test_one_scope(through: Habitat, error: LookupError | None) -> None:
    """It commits or rolls back, and leaves nothing behind."""
    writes = Writes("kept?", error)

    assert through.run(writes) is error
    assert not hasattr(error, "__notes__")
    assert_nothing_left(through, writes.session, [] if error else ["kept?"])


ERRORS = [None if n % 3 else LookupError(n) for n in range(SCOPES)]
KEPT = sorted(f"{n:03}" for n, error in enumerate(ERRORS) if error is None)


def test_many_scopes(make: Callable[..., Any], observer: Engine) -> None:
    """Each of them is committed or rolled back as a whole, and its own error leaves."""
    engine = make("psycopg", False, pool_size=20)

    def run(number: int) -> BaseException | None:
        return left_by(session_scope(engine), Writes(f"{number:03}", ERRORS[number]))

    with ThreadPoolExecutor(20) as executor:
        left = list(executor.map(run, range(SCOPES)))

    assert left == ERRORS
    assert stored(observer) == KEPT
    assert engine.pool.checkedout() == 0
    engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("driver", UNPREPARED)
async def test_many_async_scopes(
    make: Callable[..., Any], observer: Engine, driver: str
) -> None:
    """The same by async sessions."""
    engine = make(driver, True, pool_size=20)

    async def run(number: int) -> BaseException | None:
        writes = Writes(f"{number:03}", ERRORS[number])
        return await left_by_async(async_session_scope(engine), writes)

    left = await asyncio.gather(*map(run, range(SCOPES)))

    assert left == ERRORS
    assert stored(observer) == KEPT
    assert engine.pool.checkedout() == 0
    await engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("driver", UNPREPARED)
async def test_cancelled_scopes(
    make: Callable[..., Any], observer: Engine, driver: str
) -> None:
    """What is cancelled is rolled back, and holds no connection of the server."""
    engine = make(driver, True, pool_size=20)
    reached = asyncio.Semaphore(0)

    async def run(number: int) -> None:
        async with async_session_scope(engine) as session:
            await session.run_sync(Writes(f"{number:03}"))
            reached.release()
            await asyncio.Event().wait()

    # As many as can be in a transaction at once.
    tasks = [asyncio.create_task(run(n)) for n in range(SERVER_CONNECTIONS)]
    for _ in tasks:
        await reached.acquire()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)

    assert all(task.cancelled() for task in tasks)
    assert engine.pool.checkedout() == 0
    async with async_session_scope(engine) as session:
        await session.run_sync(Writes("after"))
    assert stored(observer) == ["after"]
    await engine.dispose()


def test_read_only(
    through: Habitat, make: Callable[..., Any], observer: Engine
) -> None:
    """It is refused a write; who is next on the server's connections is not."""

    def read(session: Session) -> None:
        assert session.scalars(select(Note.text)).all() == []

    def write_in_text(session: Session) -> None:
        session.execute(text("INSERT INTO note (text) VALUES ('refused')"))

    for _ in range(2 * SERVER_CONNECTIONS):
        assert through.run(read, read_only=True) is None
        assert isinstance(through.run(write_in_text, read_only=True), DBAPIError)

    assert stored(observer) == []
    all_can_write(make("psycopg", False, poolclass=NullPool))
    assert stored(observer) == [str(n) for n in range(SERVER_CONNECTIONS)]


def all_can_write(engine: Engine) -> None:
    """Write on each of the server's connections: each is in a transaction, at once."""
    with ExitStack() as stack:
        for n in range(SERVER_CONNECTIONS):
            connection = stack.enter_context(engine.begin())
            connection.execute(insert(Note).values(text=str(n)))


SETTINGS = {
    "psycopg": {"options": "-c statement_timeout=30s"},
    "asyncpg": {"server_settings": {"statement_timeout": "30s"}},
}


@pytest.mark.anyio
async def test_settings_of_a_connection(make: Callable[..., Any]) -> None:
    """They are refused, however a driver spells them."""
    sync_engine = make("psycopg", False, connect_args=SETTINGS["psycopg"])
    async_engine = make("asyncpg", True, connect_args=SETTINGS["asyncpg"])

    with pytest.raises(DBAPIError, match="unsupported startup parameter"):
        sync_engine.connect()
    with pytest.raises(Exception, match="unsupported startup parameter"):
        await async_engine.connect()
