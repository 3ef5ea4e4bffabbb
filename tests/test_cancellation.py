"""The exit outlasts a cancellation that lands at any suspension, by enumeration."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, delete, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from contract import request
from models import Note, stored
from safesession import async_session_scope
from safesession.fastapi import async_session_dependency, session_dependency

pytestmark = pytest.mark.anyio

ROWS = ["first", "second"]


def work(session: Session) -> None:
    session.add(Note(text="first"))
    session.flush()
    session.scalars(select(Note)).all()
    session.add(Note(text="second"))


class Unit:
    """A unit of work, run as one task that is interrupted at one suspension."""

    def __init__(self, run: Callable[["Unit"], Coroutine[Any, Any, Any]]) -> None:
        self._run = run
        self.suspensions_of_block = 0

    def block_ends(self) -> None:
        """Be told that what follows is the exit."""
        self.suspensions_of_block = self._suspensions.count

    async def first_of_exit(self, interrupt: "Interrupt") -> int:
        """Return the number of the first suspension of the exit.

        Those of an async session's block are not enumerated: what a cancelled
        statement leaves behind there is for SQLAlchemy and aiosqlite to clear, and
        they do not always (a cursor that keeps SQLite locked, a task without an end).
        """
        await self.interrupted(0, interrupt)
        return self.suspensions_of_block + 1

    async def interrupted(self, at: int, interrupt: "Interrupt") -> bool:
        """Run the unit; tell whether it has a suspension number `at`."""
        self._suspensions = suspensions = Suspensions(self._run(self), at)
        bystanders = asyncio.all_tasks()
        task = asyncio.create_task(interrupt.around(suspensions))
        suspensions.interrupt = lambda future: interrupt.at(future, task, bystanders)
        await asyncio.wait({task}, timeout=10)
        assert task.done()
        assert asyncio.all_tasks() == bystanders, "a task was left pending"
        reached = 0 < at <= suspensions.count
        assert interrupt.ended(task) == reached, "the cancellation was lost"
        return reached


class Suspensions:
    """Awaits a coroutine, and interrupts one of its suspensions."""

    def __init__(self, unit: Coroutine[Any, Any, Any], at: int) -> None:
        self._unit = unit
        self._at = at
        self.count = 0
        self.interrupt: Callable[[Any], None]

    def __await__(self) -> Generator[Any, Any, None]:
        resume: Callable[..., Any] = self._unit.send
        value: Any = None
        while True:
            try:
                future = resume(value)
            except StopIteration:
                return
            self.count += 1
            if self.count == self._at:
                self.interrupt(future)
            try:
                resume, value = self._unit.send, (yield future)
            except BaseException as error:
                resume, value = self._unit.throw, error


class Interrupt:
    """One native cancellation."""

    async def around(self, suspensions: Suspensions) -> Any:
        await suspensions

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        task.cancel()

    def ended(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether the cancellation arrived where it came from."""
        if task.cancelled():
            return True
        task.result()
        return False


class Twice(Interrupt):
    """A second one as soon as the task runs on."""

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        task.cancel()
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, task.cancel)


class WhenDone(Interrupt):
    """When what the task waits for is done, before the task knows."""

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        if future is None:
            task.cancel()
        else:
            future.add_done_callback(lambda _: task.cancel())


class Everything(Interrupt):
    """Every task there is, as a loop does that shuts down."""

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        for each in asyncio.all_tasks() - bystanders:
            each.cancel()


class Timeout(Interrupt):
    """`asyncio.timeout`, of which `asyncio.wait_for` is made."""

    async def around(self, suspensions: Suspensions) -> Any:
        async with asyncio.timeout(None) as self._timeout:
            await suspensions

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())

    def ended(self, task: asyncio.Task[Any]) -> bool:
        return isinstance(task.exception(), TimeoutError)


class CancelScope(Interrupt):
    """An anyio cancel scope, which cancels again at every await."""

    async def around(self, suspensions: Suspensions) -> Any:
        with anyio.CancelScope() as self._scope:
            await suspensions
        return self._scope.cancelled_caught

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        self._scope.cancel()

    def ended(self, task: asyncio.Task[Any]) -> bool:
        return bool(task.result())


class Sibling(Interrupt):
    """A task group in which another task failed."""

    async def around(self, suspensions: Suspensions) -> Any:
        self._fail = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            sibling = group.create_task(self._wait_to_fail())
            await suspensions
            sibling.cancel()

    async def _wait_to_fail(self) -> None:
        await self._fail

    def at(self, future: Any, task: asyncio.Task[Any], bystanders: set[Any]) -> None:
        self._fail.set_exception(LookupError("the sibling"))

    def ended(self, task: asyncio.Task[Any]) -> bool:
        return isinstance(task.exception(), ExceptionGroup)


@pytest.fixture(
    params=[Interrupt, Twice, WhenDone, Everything, Timeout, CancelScope, Sibling]
)
def interrupt(request: pytest.FixtureRequest) -> Interrupt:
    made: Interrupt = request.param()
    return made


async def test_async_scope(
    async_engine: AsyncEngine, engine: Engine, interrupt: Interrupt
) -> None:
    """All of an async scope is committed or none, and its connection is back."""

    async def run(unit: Unit) -> None:
        async with async_session_scope(async_engine) as session:
            await session.run_sync(work)
            unit.block_ends()

    unit = Unit(run)
    at = await unit.first_of_exit(interrupt)
    forget(engine)
    reached = True
    while reached:
        reached = await unit.interrupted(at, interrupt)
        at += 1
        assert async_engine.sync_engine.pool.checkedout() == 0
        assert stored(engine) in ([ROWS] if not reached else [[], ROWS])
        forget(engine)
    assert at > unit.suspensions_of_block + 2


class Requests:
    """Calls an app, and keeps what it answered."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.answered: list[int] = []

    async def run(self, unit: Unit) -> None:
        self.answered.clear()
        self._app.state.unit = unit
        await request(self._app, self._send)

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.answered.append(message["status"])


@pytest.fixture(params=["async session", "sync session", "thread"])
def app(
    request: pytest.FixtureRequest, engine: Engine, async_engine: AsyncEngine
) -> FastAPI:
    app = FastAPI()
    app.state.suspends_in_block = request.param == "async session"
    if app.state.suspends_in_block:
        get_async_session = async_session_dependency(async_engine)

        @app.get("/")
        async def endpoint(session: AsyncSession = Depends(get_async_session)) -> None:
            await session.run_sync(work)
            app.state.unit.block_ends()

        return app
    get_session = session_dependency(engine)
    if request.param == "sync session":

        @app.get("/")
        async def async_endpoint(session: Session = Depends(get_session)) -> None:
            work(session)
            app.state.unit.block_ends()

    else:

        @app.get("/")
        def sync_endpoint(session: Session = Depends(get_session)) -> None:
            work(session)
            app.state.unit.block_ends()

    return app


async def test_request(
    app: FastAPI, async_engine: AsyncEngine, engine: Engine, interrupt: Interrupt
) -> None:
    """What is answered 2xx is committed, and no connection is out."""
    requests = Requests(app)
    unit = Unit(requests.run)
    first = await unit.first_of_exit(interrupt)
    forget(engine)

    at = first if app.state.suspends_in_block else 1
    reached = True
    while reached:
        reached = await unit.interrupted(at, interrupt)
        at += 1
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        assert async_engine.sync_engine.pool.checkedout() == 0
        found = stored(engine)
        assert found in ([], ROWS)
        assert found == ROWS or 200 not in requests.answered
        assert requests.answered == [200] or reached
        forget(engine)


def forget(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(Note))
