"""A `def` endpoint that is cancelled: its thread goes on, with the session in hand."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any

import pytest
from anyio import CancelScope, CapacityLimiter, to_thread, wait_all_tasks_blocked
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from apps import get
from models import Note, stored
from safesession import ScopeMisuse, _cleanup, session_scope
from safesession.fastapi import session_dependency
from test_aio import callbacks_while_settling, settle
from test_fastapi_threads import hold_commits

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


class Request:
    """A request whose endpoint stops where it is told to, and tells how it ended."""

    def __init__(self, bind: Any, work: Callable[[Session], object]) -> None:
        self._stopped = threading.Event()
        self._go_on = threading.Event()
        self._ended = threading.Event()
        self.error: BaseException | None = None
        app = FastAPI()
        get_session = session_dependency(bind)

        @app.get("/")
        def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
            try:
                work(session)
            except BaseException as error:
                self.error = error
            finally:
                self._ended.set()

        self._app = app

    def stop(self, *args: object) -> None:
        """Stop the thread that calls this, the first time."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._go_on.wait(timeout=10)

    async def ask(self) -> None:
        await get(self._app)

    async def stopped(self) -> None:
        assert await asyncio.to_thread(self._stopped.wait, 10)

    async def cancel_where_stopped(self) -> asyncio.Task[Any]:
        """Cancel the task of the request, natively, while its thread has stopped."""
        task = asyncio.create_task(self.ask())
        await self.stopped()
        task.cancel()
        await settle()
        return task

    async def go_on(self) -> None:
        """Let the thread go on, to the end of the endpoint."""
        self._go_on.set()
        assert await asyncio.to_thread(self._ended.wait, 10)


@pytest.fixture
def exit_begun(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Be told when the exit begins to use the session."""
    begun = threading.Event()

    def finish(*args: Any) -> BaseException | None:
        begun.set()
        return original(*args)

    original = _cleanup.finish
    monkeypatch.setattr(_cleanup, "finish", finish)
    return begun


async def assert_waiting(exit_begun: threading.Event, task: asyncio.Task[Any]) -> None:
    """Check that the exit does not begin, however long one waits for it."""
    assert not await asyncio.to_thread(exit_begun.wait, 0.1)
    assert not task.done()


def add(session: Session) -> None:
    session.add(Note(text="kept?"))
    session.flush()


async def assert_cancelled(task: asyncio.Task[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_exit_waits_for_the_statement_of_the_thread(
    engine: Engine, exit_begun: threading.Event
) -> None:
    """The exit leaves the connection alone while the endpoint's thread uses it."""
    done: list[str] = []
    request = Request(engine, add)
    event.listen(engine, "before_cursor_execute", request.stop)
    event.listen(engine, "after_cursor_execute", lambda *args: done.append("execute"))
    event.listen(engine, "rollback", lambda *args: done.append("rollback"))

    task = await request.cancel_where_stopped()
    await assert_waiting(exit_begun, task)
    assert done == []
    await request.go_on()
    await assert_cancelled(task)

    assert done == ["execute", "rollback"]
    assert checked_out(engine) == 0
    assert stored(engine) == []


async def test_exit_waits_for_the_connection_of_the_thread(
    engine: Engine, exit_begun: threading.Event
) -> None:
    """A connection that the thread was waiting for is checked in again."""
    request = Request(engine, add)
    event.listen(engine, "checkout", request.stop)

    task = await request.cancel_where_stopped()
    await assert_waiting(exit_begun, task)
    await request.go_on()
    await assert_cancelled(task)

    assert checked_out(engine) == 0
    assert stored(engine) == []


async def test_exit_waits_for_the_savepoint_of_the_thread(
    engine: Engine, exit_begun: threading.Event
) -> None:
    """A scope inside the endpoint ends before the request's own does."""

    def work(session: Session) -> None:
        with session_scope(session):
            add(session)

    done: list[str] = []
    request = Request(engine, work)
    event.listen(engine, "release_savepoint", request.stop)
    event.listen(engine, "rollback", lambda *args: done.append("rollback"))

    task = await request.cancel_where_stopped()
    await assert_waiting(exit_begun, task)
    assert done == []
    await request.go_on()
    await assert_cancelled(task)

    assert request.error is None
    assert checked_out(engine) == 0
    assert stored(engine) == []


@pytest.mark.parametrize("close_resets_only", [None, True, False])
async def test_thread_cannot_use_the_session_after_the_exit(
    engine: Engine, close_resets_only: bool | None
) -> None:
    """After the exit of a cancelled request the session refuses its thread."""
    options = (
        {} if close_resets_only is None else {"close_resets_only": close_resets_only}
    )
    maker = sessionmaker(engine, **options)
    request = Request(maker, lambda session: (request.stop(), session.connection()))

    task = await request.cancel_where_stopped()
    await assert_cancelled(task)
    await request.go_on()

    assert isinstance(request.error, ScopeMisuse)
    assert str(request.error) == (
        "The request that this session belongs to was cancelled, and the session has "
        "ended with it. Work that is to outlive its request needs a session_scope() "
        "of its own."
    )
    assert checked_out(engine) == 0


def checked_out(engine: Engine) -> int:
    return engine.pool.checkedout()  # type: ignore[attr-defined, no-any-return]


# What the exit is at when a cancellation arrives: its task has not begun, waits for a
# thread, is in its thread, or has come back from it. The first and the last of these
# are among the suspensions of test_cancellation. It is in no queue for a thread, as its
# limiter is its own; only what comes before it can be.


async def test_cancelled_in_the_queue_for_a_thread(engine: Engine) -> None:
    """An endpoint that never got a thread is rolled back, with no thread free."""
    called: list[str] = []
    get_session = session_dependency(engine)
    app = FastAPI()

    async def used(session: Annotated[Session, Depends(get_session)]) -> Session:
        add(session)
        return session

    @app.get("/")
    def endpoint(session: Annotated[Session, Depends(used)]) -> None:
        called.append("endpoint")

    limiter = to_thread.current_default_thread_limiter()
    async with AsyncExitStack() as held:
        while limiter.available_tokens:
            await held.enter_async_context(Token(limiter))
        task = asyncio.create_task(get(app))
        await wait_all_tasks_blocked()
        assert limiter.statistics().tasks_waiting == 1
        assert checked_out(engine) == 1
        task.cancel()
        await assert_cancelled(task)

        assert checked_out(engine) == 0
        assert called == []
    assert stored(engine) == []


class Token:
    """Holds one of a limiter's tokens, in place of a thread that is busy."""

    def __init__(self, limiter: CapacityLimiter) -> None:
        self._limiter = limiter

    async def __aenter__(self) -> None:
        await self._limiter.acquire_on_behalf_of(self)

    async def __aexit__(self, *exc_info: object) -> None:
        self._limiter.release_on_behalf_of(self)


def by_scope(task: asyncio.Task[Any], scope: CancelScope) -> None:
    scope.cancel()


def natively(task: asyncio.Task[Any], scope: CancelScope) -> None:
    task.cancel()


def shutdown(task: asyncio.Task[Any], scope: CancelScope) -> None:
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        if each is task or "safesession" in each.get_coro().cr_code.co_filename:
            each.cancel()


@pytest.mark.parametrize("cancel", [by_scope, natively])
async def test_loop_is_at_rest_while_the_exit_runs(
    database: Any, engine: Engine, cancel: Callable[..., None]
) -> None:
    """However long the exit takes after a cancellation, the loop has nothing to do."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        session.add(Note(text="kept"))

    async def ask() -> None:
        with scope:
            await get(app)

    at_rest = await callbacks_while_settling()
    reached, release = hold_commits(database)
    scope = CancelScope()
    task = asyncio.create_task(ask())
    await asyncio.wait_for(reached.wait(), 10)
    cancel(task, scope)
    await settle()
    assert at_rest == await callbacks_while_settling()
    assert not task.done()
    release()
    await asyncio.wait({task}, timeout=10)

    assert task.cancelled() or scope.cancelled_caught
    assert 0 == database.engine.pool.checkedout()
    assert ["kept"] == stored(engine)


async def test_exit_in_its_thread_outlasts_a_shutdown(
    sync_database: Any, engine: Engine
) -> None:
    """An exit that is in its thread is waited for when every task is cancelled."""
    await test_loop_is_at_rest_while_the_exit_runs(sync_database, engine, shutdown)


@pytest.mark.parametrize("cancel", [by_scope, natively])
async def test_loop_is_at_rest_while_the_exit_waits(
    engine: Engine, cancel: Callable[..., None]
) -> None:
    """So it has while the exit waits for the thread of the endpoint."""
    request = Request(engine, add)
    event.listen(engine, "before_cursor_execute", request.stop)

    async def ask() -> None:
        with scope:
            await request.ask()

    at_rest = await callbacks_while_settling()
    scope = CancelScope()
    task = asyncio.create_task(ask())
    await request.stopped()
    cancel(task, scope)
    await settle()
    assert at_rest == await callbacks_while_settling()
    assert not task.done()
    await request.go_on()
    await asyncio.wait({task}, timeout=10)

    assert task.cancelled() or scope.cancelled_caught
    assert checked_out(engine) == 0
