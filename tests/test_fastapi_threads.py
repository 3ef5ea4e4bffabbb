"""Which thread does what, what waits for whom, and what a cancellation leaves."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from anyio import fail_after, to_thread, wait_all_tasks_blocked
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Engine, event, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from apps import client, get, while_no_thread_is_free, write
from models import Note, stored
from safesession import _threads, _workers
from safesession.fastapi import async_session_dependency, session_dependency

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


async def test_unused_sync_session_needs_no_thread(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync session is made, and if unused closed, on the event loop."""
    calls: list[tuple[str, int]] = []
    hops: list[Any] = []

    class Watched(Session):
        def __init__(self, *args: Any, **options: Any) -> None:
            calls.append(("made", threading.get_ident()))
            super().__init__(*args, **options)

        def close(self) -> None:
            calls.append(("closed", threading.get_ident()))
            super().close()

    async def count(*args: Any, **options: Any) -> None:
        hops.append(args)

    monkeypatch.setattr(_threads, "in_thread", count)

    app = FastAPI()
    get_session = session_dependency(engine, class_=Watched)

    @app.get("/")
    async def reject(session: Annotated[Session, Depends(get_session)]) -> None:
        raise HTTPException(401)

    monkeypatch.setattr(to_thread, "run_sync", count)

    assert 401 == (await get(app)).status_code
    here = threading.get_ident()
    assert [("made", here), ("closed", here)] == calls
    assert [] == hops


@pytest.mark.parametrize(
    "error", [None, HTTPException(400)], ids=["commit", "rollback"]
)
async def test_exit_of_a_used_sync_session(
    sync_database: Any, error: Exception | None
) -> None:
    """What waits for the database on the way out does so in a worker thread."""
    app = FastAPI()
    get_session = sync_database.get_session()
    threads: list[int] = []
    for name in ("commit", "rollback", "checkin"):
        event.listen(
            sync_database.engine, name, lambda *_: threads.append(threading.get_ident())
        )

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        await write(session)
        if error is not None:
            raise error

    await get(app)

    assert 2 == len(threads)
    assert threading.get_ident() not in threads


async def test_commit_waits_for_no_worker(database: Any, engine: Engine) -> None:
    """A request is committed and answered while others hold every worker thread."""
    app = FastAPI()

    @app.get("/", status_code=201)
    async def create(session: Annotated[Any, Depends(database.get_session())]) -> None:
        session.add(Note(text="kept"))

    assert 201 == await while_no_thread_is_free(app, "/")
    assert ["kept"] == stored(engine)


async def test_rollback_waits_for_no_worker(database: Any, engine: Engine) -> None:
    """So is a request that failed after it had used its session."""
    app = FastAPI()

    @app.get("/")
    async def reject(session: Annotated[Any, Depends(database.get_session())]) -> None:
        await write(session, "lost")
        raise HTTPException(400)

    assert 400 == await while_no_thread_is_free(app, "/")
    assert [] == stored(engine)


async def test_rejection_waits_for_no_worker(database: Any) -> None:
    """So is a request that does not validate, or is rejected before it does a thing."""
    app = FastAPI()

    @app.get("/{number}")
    async def reject(
        number: int, session: Annotated[Any, Depends(database.get_session())]
    ) -> None:
        raise HTTPException(401)

    assert 422 == await while_no_thread_is_free(app, "/none")
    assert 401 == await while_no_thread_is_free(app, "/1")


# Many at once


async def statuses(app: FastAPI, count: int) -> list[int]:
    async with client(app) as http:
        requests = [http.get(f"/{number}") for number in range(count)]
        with fail_after(60):
            return [
                response.status_code for response in await asyncio.gather(*requests)
            ]


def status(number: int) -> int:
    return 400 + number % 10


async def test_500_failures_after_a_query(
    make_async_engine: Callable[..., AsyncEngine],
) -> None:
    """500 requests that fail at once, on a pool of 5, have each its own status."""
    engine = make_async_engine(pool_size=5, max_overflow=0)
    get_session = async_session_dependency(engine)
    app = FastAPI()

    @app.get("/{number}")
    async def reject(
        number: int, session: Annotated[Any, Depends(get_session)]
    ) -> None:
        await session.execute(select(Note))
        raise HTTPException(status(number))

    assert list(map(status, range(500))) == await statuses(app, 500)
    assert 0 == engine.sync_engine.pool.checkedout()  # type: ignore[attr-defined]


async def test_500_rejections_of_sync_endpoints(
    make_engine: Callable[..., Engine],
) -> None:
    """So have 500 that sync endpoints reject before they query."""
    engine = make_engine(pool_size=5, max_overflow=0)
    get_session = session_dependency(engine)
    app = FastAPI()

    @app.get("/{number}")
    def reject(number: int, session: Annotated[Any, Depends(get_session)]) -> None:
        raise HTTPException(status(number))

    assert list(map(status, range(500))) == await statuses(app, 500)
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]


async def test_500_failures_of_sync_endpoints(
    make_engine: Callable[..., Engine],
) -> None:
    """So have 500 that sync endpoints reject after a query."""
    engine = make_engine(pool_size=5, max_overflow=0)
    get_session = session_dependency(engine)
    app = FastAPI()

    @app.get("/{number}")
    def reject(number: int, session: Annotated[Any, Depends(get_session)]) -> None:
        session.execute(select(Note))
        raise HTTPException(status(number))

    assert list(map(status, range(500))) == await statuses(app, 500)
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]


# A request whose task is cancelled, as by a server that gives up


async def test_cancelled_in_the_endpoint(database: Any, engine: Engine) -> None:
    """A request that is cancelled in its endpoint is rolled back before it ends."""
    app = FastAPI()
    reached = asyncio.Event()

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        await write(session, "lost")
        reached.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(get(app))
    with fail_after(5):
        await reached.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert 0 == database.engine.pool.checkedout()
    assert [] == stored(engine)


def hold_commits(database: Any) -> tuple[asyncio.Event, Callable[[], None]]:
    """Hold each commit of the engine; return the event of one and its release."""
    reached, loop = asyncio.Event(), asyncio.get_running_loop()
    release: Any
    if database.bind is database.engine:
        release = threading.Event()

        def hold(connection: Any) -> None:
            loop.call_soon_threadsafe(reached.set)
            release.wait(10)
    else:
        release = asyncio.Event()

        def hold(connection: Any) -> None:
            reached.set()
            await_only(release.wait())

    event.listen(database.engine, "commit", hold)
    return reached, release.set


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_in_the_commit(
    database: Any, engine: Engine, times: int
) -> None:
    """A commit that has begun is finished before the cancelled request ends."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        session.add(Note(text="kept"))

    reached, release = hold_commits(database)
    request = asyncio.create_task(get(app))
    with fail_after(5):
        await reached.wait()
    for _ in range(times):
        request.cancel()
        await wait_all_tasks_blocked()
    assert not request.done()
    release()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert 0 == database.engine.pool.checkedout()
    assert ["kept"] == stored(engine)


async def test_exit_where_no_thread_can_be_started(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit holds the loop up rather than leave its connection out."""
    app = FastAPI()
    get_session = session_dependency(engine)

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        await write(session)
        raise HTTPException(400)

    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "safesession" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    _workers._workers_of(os.getpid())._idle.clear()

    assert 400 == (await get(app)).status_code
    assert 0 == engine.pool.checkedout()  # type: ignore[attr-defined]
    assert [] == stored(engine)
