"""Two nodes of a Galera cluster: what one refuses for what the other has committed."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from apps import client
from backends import started
from contract import HABITATS, Habitat, assert_nothing_left, left_by
from mariadb import MariaDB, galera
from models import Base, Note, stored
from safesession import OutcomeUnknown, session_scope
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.retry import RetryMiddleware, is_retryable, run_in_session

# On each of the two nodes.
WRITERS, INCREMENTS = 4, 25
ALL = 2 * WRITERS * INCREMENTS
# Read what is committed on any node, and not what has been applied on this one by now.
COHERENT = {"init_command": "SET wsrep_sync_wait = 1"}
POOL: dict[str, Any] = {"pool_size": WRITERS, "max_overflow": 0}


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[MariaDB]]:
    """Return two nodes, with the tables on both."""
    with started(galera(2)) as nodes:
        create_tables(nodes[0])
        yield nodes


def create_tables(node: MariaDB) -> None:
    engine = create_engine(node.url())
    Base.metadata.create_all(engine)
    engine.dispose()


@pytest.fixture
def engines(nodes: list[MariaDB]) -> Iterator[list[Engine]]:
    """Return an engine for each node, of which both have the one row."""
    engines = [create_engine(each.url(), connect_args=COHERENT) for each in nodes]
    with session_scope(engines[0]) as session:
        session.execute(text("DELETE FROM note"))
        session.add(Note(id=1, text="0"))
    assert stored(engines[1]) == ["0"]
    yield engines
    for engine in engines:
        engine.dispose()


@pytest.fixture(params=HABITATS, ids=lambda kind: kind.__name__)
def on_one(
    request: pytest.FixtureRequest, nodes: list[MariaDB], engines: list[Engine]
) -> Iterator[Habitat]:
    """Return one of the ways to hold a session, on the first node."""
    is_async = "Async" in request.param.__name__
    make: Any = create_async_engine if is_async else create_engine
    url = nodes[0].url("asyncmy" if is_async else "pymysql")
    habitat = request.param(make(url, connect_args=COHERENT, pool_size=1))
    yield habitat
    habitat.close()


def end_normally(session: Session) -> None:
    pass


def run_more(session: Session) -> None:
    session.execute(select(Note.text))


@pytest.mark.parametrize("then", [end_normally, run_more])
def test_conflict(
    on_one: Habitat, engines: list[Engine], then: Callable[[Session], None]
) -> None:
    """Who is second to commit is told so by the COMMIT, or by the next statement."""
    one, other = engines
    used: list[Session] = []

    def lose(session: Session) -> None:
        used.append(session)
        session.get_one(Note, 1).text = "the loser's"
        session.flush()
        with session_scope(other) as rival:
            rival.get_one(Note, 1).text = "the winner's"
        assert stored(one) == ["the winner's"]
        then(session)

    left = on_one.run(lose)

    assert isinstance(left, OperationalError)
    assert code_of(left) == 1213
    assert not left.connection_invalidated
    assert not hasattr(left, "__notes__")
    assert is_retryable(left)
    assert_nothing_left(on_one, used[0], ["the winner's"])


def code_of(error: BaseException | None) -> object:
    assert isinstance(error, DBAPIError)
    return error.orig.args[0]  # type: ignore[union-attr]


def increment(session: Session) -> None:
    note = session.get_one(Note, 1, with_for_update=True)
    note.text = str(int(note.text) + 1)


async def async_increment(session: AsyncSession) -> None:
    note = await session.get_one(Note, 1, with_for_update=True)
    note.text = str(int(note.text) + 1)


def retries_in(caplog: pytest.LogCaptureFixture) -> int:
    warned = [each for each in caplog.records if each.name == "safesession"]
    assert {each.levelname for each in warned} <= {"WARNING"}
    return len(warned)


def test_hot_row(
    nodes: list[MariaDB],
    engines: list[Engine],
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, object], None],
) -> None:
    """Of eight writers on two nodes, each increment is applied exactly once."""
    writing = [create_engine(node.url(), **POOL) for node in nodes]

    def write(engine: Engine) -> None:
        for _ in range(INCREMENTS):
            run_in_session(engine, increment, attempts=None)

    with ThreadPoolExecutor(2 * WRITERS) as executor:
        list(executor.map(write, writing * WRITERS))

    assert [stored(engine) for engine in engines] == [[str(ALL)]] * 2
    assert [engine.pool.checkedout() for engine in writing] == [0, 0]  # type: ignore[attr-defined]
    retries = retries_in(caplog)
    assert retries > 0
    record_property("figures", f"{ALL} increments, {retries} retries")
    for engine in writing:
        engine.dispose()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["sync session", "async session"])
async def test_hot_row_of_requests(
    nodes: list[MariaDB],
    engines: list[Engine],
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, object], None],
    kind: str,
) -> None:
    """Of two apps on two nodes, each request is told 200 and applied exactly once."""
    binds: list[Any]
    if kind == "sync session":
        binds = [create_engine(node.url(), **POOL) for node in nodes]
    else:
        binds = [create_async_engine(node.url("asyncmy"), **POOL) for node in nodes]

    async def write(bind: Any) -> list[int]:
        app = sync_app(bind) if isinstance(bind, Engine) else async_app(bind)
        async with client(app) as http:
            return [(await http.post("/")).status_code for _ in range(INCREMENTS)]

    told = await asyncio.gather(*map(write, binds * WRITERS))

    statuses = Counter(status for each in told for status in each)
    assert statuses == {200: ALL}
    assert [stored(engine) for engine in engines] == [[str(ALL)]] * 2
    retries = retries_in(caplog)
    assert retries > 0
    record_property("figures", f"{ALL} requests, all told 200, {retries} retries")
    for bind in binds:
        assert bind.pool.checkedout() == 0
        if isinstance(bind, Engine):
            bind.dispose()
        else:
            await bind.dispose()


def sync_app(engine: Engine) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RetryMiddleware, attempts=None, timeout=60)
    get_session = session_dependency(engine)

    @app.post("/")
    def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        increment(session)

    return app


def async_app(engine: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RetryMiddleware, attempts=None, timeout=60)
    get_session = async_session_dependency(engine)

    @app.post("/")
    async def endpoint(session: Annotated[AsyncSession, Depends(get_session)]) -> None:
        await async_increment(session)

    return app


def test_node_that_has_lost_the_other(
    record_property: Callable[[str, object], None],
) -> None:
    """It refuses work until there are more nodes, and that is worth another attempt.

    But for the COMMIT that was under way when it noticed.
    """
    told: list[object] = []
    with started(galera(2)) as (one, other):
        create_tables(one)
        engine = create_engine(one.url())
        with session_scope(engine) as session:
            session.add(Note(id=1, text="0"))
        other.kill()
        # That COMMIT is told 1180.
        while 1047 not in told:
            left = left_by(session_scope(engine), increment)
            if left is not None:
                told.append(code_of(left))
                assert isinstance(left, OutcomeUnknown) is (told[-1] == 1180)
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        engine.dispose()
    assert left is not None
    assert is_retryable(left)
    record_property("figures", f"told {told}")


def test_node_of_three_that_is_killed(
    record_property: Callable[[str, object], None],
) -> None:
    """Who is on the others goes on; what was told is applied once, and is not lost."""
    told: Counter[str] = Counter()
    some = threading.Event()
    with started(galera(3)) as nodes:
        create_tables(nodes[0])
        engines = [create_engine(node.url(), **POOL) for node in nodes]
        *surviving, dying = engines
        with session_scope(dying) as session:
            session.add(Note(id=1, text="0"))

        def write(engine: Engine) -> None:
            for _ in range(INCREMENTS):
                run_in_session(engine, increment, attempts=None)
                told["applied"] += 1

        def write_until_killed() -> None:
            for number in itertools.count():
                try:
                    run_in_session(dying, increment, attempts=1)
                except OutcomeUnknown:
                    told["unknown"] += 1
                except OperationalError as error:
                    told["refused"] += 1
                    # It cannot be connected to any more.
                    if code_of(error) == 2003:
                        return
                else:
                    told["applied"] += 1
                if number == 5:
                    some.set()

        with ThreadPoolExecutor(3 * WRITERS) as executor:
            work = [executor.submit(write, each) for each in surviving * WRITERS]
            work += [executor.submit(write_until_killed) for _ in range(WRITERS)]
            assert some.wait(30)
            nodes[2].kill()
        for each in work:
            each.result()

        for engine in engines:
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        found = set[str]()
        for node in nodes[:2]:
            observer = create_engine(node.url(), connect_args=COHERENT)
            found.update(stored(observer))
            observer.dispose()
        for engine in engines:
            engine.dispose()
    (count,) = map(int, found)
    assert told["applied"] <= count <= told["applied"] + told["unknown"]
    record_property("figures", f"{dict(told)}, and {count} in the database")
