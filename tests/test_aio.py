"""What is particular to the async scope; the rest is shared, see test_contract."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import anyio
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.util import await_only
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from backends import with_deferred_constraints
from eager import eager_tasks, needs_eager_tasks
from models import Note, Reply, stored
from safesession import (
    EngineNotConfigured,
    ScopeMisuse,
    _cleanup,
    async_session_scope,
)
from safesession._aio import AsyncExit

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]


@pytest.mark.parametrize(
    "bind",
    [
        lambda engine: engine,
        async_sessionmaker,
        lambda engine: lambda: engine,
        lambda engine: lambda: async_sessionmaker(engine),
    ],
    ids=["engine", "sessionmaker", "returns engine", "returns sessionmaker"],
)
async def test_bind(
    async_engine: AsyncEngine, engine: Engine, bind: Callable[[AsyncEngine], Any]
) -> None:
    """An async engine, an async_sessionmaker, and a callable that returns either."""
    async with async_session_scope(bind(async_engine)) as session:
        assert isinstance(session, AsyncSession)
        session.add(Note(text="kept"))

    assert stored(engine) == ["kept"]
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.execute(text("SELECT 1"))


async def test_connection_is_used_and_left_open(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """An async connection stays its owner's."""
    async with async_engine.connect() as connection:
        async with async_session_scope(connection) as session:
            session.add(Note(text="kept"))
        assert not connection.closed

    assert stored(engine) == ["kept"]


async def test_sessions_of_an_engine_do_not_expire_on_commit(
    async_engine: AsyncEngine,
) -> None:
    """After the scope, what it loaded can be read."""
    async with async_session_scope(async_engine) as session:
        session.add(note := Note(text="kept"))

    assert note.text == "kept"


async def test_settings_of_a_sessionmaker_stand(async_engine: AsyncEngine) -> None:
    """An async_sessionmaker that expires on commit still does."""
    async with async_session_scope(async_sessionmaker(async_engine)) as session:
        assert session.sync_session.expire_on_commit


async def test_class(async_engine: AsyncEngine) -> None:
    """`class_` is the session class for an async engine."""
    scope = async_session_scope(async_engine, class_=SQLModelAsyncSession)
    async with scope as session:
        assert type(session) is SQLModelAsyncSession


async def test_missing_bind(caplog: pytest.LogCaptureFixture) -> None:
    """A bind that is None raises on entering, or gives None for a session."""
    with pytest.raises(EngineNotConfigured, match=r"^async_session_scope\(\) has no"):
        async with async_session_scope(None):
            pytest.fail("entered")
    async with async_session_scope(None, missing_ok=True) as session:
        assert session is None
    assert caplog.messages[0].startswith("async_session_scope() has no engine")


async def test_scope_is_single_use(async_engine: AsyncEngine) -> None:
    """An async scope serves one block."""
    scope = async_session_scope(async_engine)
    with pytest.raises(ScopeMisuse, match=r"^This async_session_scope\(\) was left"):
        await scope.__aexit__(None, None, None)
    async with scope:
        pass
    with pytest.raises(ScopeMisuse, match=r"^This async_session_scope\(\) was enter"):
        await scope.__aenter__()


async def test_savepoint_that_was_not_entered_is_not_left(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """Leaving it leaves the outer session alone."""
    async with AsyncSession(async_engine) as outer:
        outer.add(Note(text="not committed"))
        await outer.flush()
        with pytest.raises(ScopeMisuse):
            await async_session_scope(outer).__aexit__(None, None, None)
        await outer.rollback()

    assert stored(engine) == []


async def test_unused_session_makes_no_task(async_engine: AsyncEngine) -> None:
    """An exit that has nothing to do runs where it is, and suspends nowhere."""
    scope = async_session_scope(async_engine)
    await scope.__aenter__()
    with pytest.raises(StopIteration):
        scope.__aexit__(None, None, None).send(None)


@needs_eager_tasks
@pytest.mark.parametrize("error", [None, LookupError()])
async def test_eager_tasks(
    async_engine: AsyncEngine, engine: Engine, error: Exception | None
) -> None:
    """The exit has one task, also where the loop begins each as it is made."""
    leaving = nullcontext() if error is None else pytest.raises(LookupError)
    with eager_tasks(), leaving:
        async with async_session_scope(async_engine) as session:
            session.add(Note(text="kept"))
            await session.flush()
            if error is not None:
                raise error

    assert stored(engine) == (["kept"] if error is None else [])
    assert async_engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_exit_is_carried_out_once(
    async_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second finds it done."""
    done: list[object] = []
    monkeypatch.setattr(_cleanup, "finish", lambda *args: done.append(args))
    session_exit = AsyncExit(AsyncSession(async_engine), ())

    session_exit._carry_out()
    session_exit._carry_out()

    assert len(done) == 1


class Stalled:
    """Holds up what the driver does at the end of a transaction."""

    def __init__(self, engine: AsyncEngine, step: str) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        event.listen(engine.sync_engine, step, self._stall)

    def _stall(self, connection: Any) -> None:
        self.begun.set()
        await_only(self.go_on.wait())


async def settle() -> None:
    """Let the loop run whatever can run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def callbacks_while_settling() -> int:
    """Count what is put on the loop while it settles: more than at rest is busy."""
    loop = asyncio.get_running_loop()
    with patch.object(loop, "call_soon", wraps=loop.call_soon) as call_soon:
        await settle()
    return call_soon.call_count


@pytest.mark.parametrize("times", [1, 2])
async def test_commit_that_has_begun_outlasts_cancellation(
    async_engine: AsyncEngine, engine: Engine, times: int
) -> None:
    """A task cancelled during the commit ends with it done, and cancelled."""
    commit = Stalled(async_engine, "commit")

    async def work() -> None:
        async with async_session_scope(async_engine) as session:
            session.add(Note(text="kept"))

    task = asyncio.create_task(work())
    await commit.begun.wait()
    for _ in range(times):
        task.cancel()
        await settle()
        assert not task.done()
    commit.go_on.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert caught.value.__context__ is None
    assert stored(engine) == ["kept"]
    assert async_engine.sync_engine.pool.checkedout() == 0


async def test_rollback_outlasts_cancellation(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """A cancellation during the rollback has the exception for its context."""
    rollback = Stalled(async_engine, "rollback")
    error = LookupError()

    async def work() -> None:
        async with async_session_scope(async_engine) as session:
            session.add(Note(text="kept?"))
            await session.flush()
            raise error

    task = asyncio.create_task(work())
    await rollback.begun.wait()
    task.cancel()
    await settle()
    rollback.go_on.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert caught.value.__context__ is error
    assert stored(engine) == []


@with_deferred_constraints
async def test_failed_commit_is_the_context_of_a_cancellation(
    async_engine: AsyncEngine,
) -> None:
    """A commit that fails while the task is cancelled is not lost."""
    commit = Stalled(async_engine, "commit")

    async def work() -> None:
        async with async_session_scope(async_engine) as session:
            session.add(Reply(note_id=-1))

    task = asyncio.create_task(work())
    await commit.begun.wait()
    task.cancel()
    await settle()
    commit.go_on.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert isinstance(caught.value.__context__, IntegrityError)


async def test_commit_outlasts_a_cancelled_anyio_scope(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """A cancel scope, which cancels again at each await, waits for the commit."""
    commit = Stalled(async_engine, "commit")

    async def work(scope: anyio.CancelScope) -> None:
        with scope:
            async with async_session_scope(async_engine) as session:
                session.add(Note(text="kept"))

    cancel_scope = anyio.CancelScope()
    at_rest = await callbacks_while_settling()
    task = asyncio.create_task(work(cancel_scope))
    await commit.begun.wait()
    cancel_scope.cancel()
    await settle()
    assert await callbacks_while_settling() == at_rest
    assert not task.done()
    commit.go_on.set()
    await task

    assert cancel_scope.cancelled_caught
    assert stored(engine) == ["kept"]


async def test_cancellation_needs_no_anyio(
    async_engine: AsyncEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody has imported anyio, the exit outlasts a cancellation too."""
    monkeypatch.delitem(sys.modules, "anyio")
    await test_commit_that_has_begun_outlasts_cancellation(async_engine, engine, 2)
