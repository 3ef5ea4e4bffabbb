"""Requests and scopes that are cancelled while the server works for them."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

import pytest
from anyio import from_thread
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from apps import get
from backends import wait_until
from models import Note, stored
from safesession import async_session_scope
from safesession.fastapi import async_session_dependency
from test_aio import settle
from test_fastapi_cancelled import Request, add

pytestmark = [pytest.mark.anyio, pytest.mark.on("postgresql")]

RUNNING = "EXISTS (SELECT FROM others WHERE state = 'active' AND query ~ 'pg_sleep')"


# For how long the server works before it looks whether its client is still there.
CHECK = "SET client_connection_check_interval = "


async def run_long(session: AsyncSession, check: str) -> None:
    session.add(Note(text="lost"))
    await session.flush()
    await session.execute(text(CHECK + check))
    await session.execute(text("SELECT pg_sleep(60)"))


async def in_scope(engine: AsyncEngine, check: str) -> None:
    async with async_session_scope(engine) as session:
        await run_long(session, check)


async def in_request(engine: AsyncEngine, check: str) -> None:
    app = FastAPI()
    get_session = async_session_dependency(engine)

    @app.get("/")
    async def endpoint(session: Annotated[AsyncSession, Depends(get_session)]) -> None:
        await run_long(session, check)

    await get(app)


@pytest.mark.parametrize(
    "times, check",
    # Who cancels again, as anyio does, has the driver close the connection before it
    # has told the server to stop.
    [(1, "0"), (2, "'20ms'")],
)
@pytest.mark.parametrize("run", [in_scope, in_request])
async def test_cancelled_while_the_server_works(
    async_engine: AsyncEngine,
    observer: Engine,
    run: Callable[[AsyncEngine, str], Coroutine[Any, Any, None]],
    times: int,
    check: str,
) -> None:
    """The server stops, and keeps no transaction of it."""
    with observer.connect() as connection:
        wait = partial(asyncio.to_thread, wait_until, connection)
        task = asyncio.create_task(run(async_engine, check))
        await wait(RUNNING)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

        assert async_engine.sync_engine.pool.checkedout() == 0
        await wait("NOT EXISTS (SELECT FROM others WHERE state <> 'idle')")
    assert stored(observer) == []


LOCK = text("LOCK TABLE reply")


async def cancel_where_it_waits(
    request: Coroutine[Any, Any, None], engine: Engine, observer: Engine
) -> None:
    """Cancel a request that waits for a lock, and see that nothing is left of it."""
    with observer.connect() as connection:
        connection.execute(LOCK)
        wait = partial(asyncio.to_thread, wait_until, connection)
        task = asyncio.create_task(request)
        await wait("EXISTS (SELECT FROM others WHERE wait_event_type = 'Lock')")
        task.cancel()
        await settle()
        # Nobody tells the server to stop: the exit waits for the thread's statement.
        # That of asyncpg is refused meanwhile, and closes the connection.
        assert not task.done() or engine.driver == "asyncpg"
        connection.rollback()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        await wait("NOT EXISTS (SELECT FROM others WHERE state <> 'idle')")
    assert stored(observer) == []


async def test_thread_cancelled_while_the_server_works(
    engine: Engine, observer: Engine
) -> None:
    """The thread of a `def` endpoint goes on, and what it has done is rolled back."""

    def work(session: Session) -> None:
        add(session)
        session.execute(LOCK)

    await cancel_where_it_waits(Request(engine, work).ask(), engine, observer)


async def test_thread_with_async_session_cancelled_while_the_server_works(
    async_engine: AsyncEngine, observer: Engine
) -> None:
    """It is odd in a `def` endpoint, but has to come out right."""
    app = FastAPI()
    get_session = async_session_dependency(async_engine)

    @app.get("/")
    def endpoint(session: Annotated[AsyncSession, Depends(get_session)]) -> None:
        from_thread.run(session.run_sync, add)
        from_thread.run(session.execute, LOCK)

    await cancel_where_it_waits(ask(app), async_engine.sync_engine, observer)


async def ask(app: FastAPI) -> None:
    await get(app)
