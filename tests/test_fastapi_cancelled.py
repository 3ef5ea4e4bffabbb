"""A `def` endpoint that is cancelled: its thread goes on, with the session in hand."""

import asyncio
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, event
from sqlalchemy.orm import Session, sessionmaker

from apps import get
from models import Note, stored
from safesession import ScopeMisuse, _threads, session_scope
from safesession.fastapi import session_dependency
from test_aio import settle

pytestmark = pytest.mark.anyio


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

    async def cancel_where_stopped(self) -> asyncio.Task[Any]:
        """Cancel the task of the request, natively, while its thread has stopped."""
        task = asyncio.create_task(get(self._app))
        assert await asyncio.to_thread(self._stopped.wait, 10)
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

    original = _threads.finish
    monkeypatch.setattr(_threads, "finish", finish)
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
