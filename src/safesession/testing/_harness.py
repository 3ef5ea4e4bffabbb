"""Ways to hold a session: each runs a body of work on one, and tells what left."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
)
from contextvars import copy_context
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from safesession._binds import describe
from safesession.errors import ScopeMisuse

from ._heard import Heard

T = TypeVar("T")

# Works on a session; may return what is to be raised in the block, as not all can be
# raised through a coroutine.
Body = Callable[[Session], BaseException | None]


class Harness:
    """A way to hold a session."""

    # The session that was given last, sync or async.
    session: Any = None
    # Whether the last unit ended in an error that a client was told, and nobody else.
    answered = False
    # Whether nothing but the scope changes the cause and context of an exception.
    keeps_links = True
    # What the reader of a report has to know of it, if anything.
    note = ""

    def run(self, body: Body) -> BaseException | None:
        """Run `body` on a session, and return the exception that left, if any."""
        raise NotImplementedError

    def carries(self, error: BaseException) -> bool:
        """Tell whether `error` would arrive as it is if there were no scope."""
        return True

    def listen(self, heard: Heard) -> None:
        """Have it told what an event loop has nobody to tell, if there is one."""

    def tasks(self) -> "set[asyncio.Task[Any]]":
        """Return the tasks that are there, if any can be."""
        return set()

    def settle(self, bystanders: "set[asyncio.Task[Any]]") -> BaseException | None:
        """Have the tasks end that a unit has left; return what stopped the loop."""
        return None

    def call(self, work: Callable[[Any], Any], session: Any) -> Any:
        """Call `work` on a session outside of any scope."""
        return work(session)

    def look(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Do something on a connection of one's own, and commit it."""
        with engine.begin() as connection:
            return work(connection)

    def dispose(self, engine: Engine) -> None:
        """Close the connections that are in the engine's pool."""
        engine.dispose()

    def close(self) -> None:
        """Let go of what the harness itself holds."""


class InWith(Harness):
    """A block of a `with` statement."""

    def __init__(self, make: Callable[[], AbstractContextManager[Session]]) -> None:
        self._make = make

    def run(self, body: Body) -> BaseException | None:
        try:
            with self._make() as session:
                self.session = checked(session)
                raise_if_any(body(session))
        except BaseException as error:
            return error
        return None


class InTask(Harness):
    """Whatever needs an event loop, which it has of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.Runner()

    async def left_by(self, body: Body) -> BaseException | None:
        """Run `body` as `run` does, in the running loop."""
        raise NotImplementedError

    async def work_on(self, session: Any, body: Body) -> BaseException | None:
        """Run `body` on a session of either kind."""
        self.session = checked(session)
        if isinstance(session, Session):
            return body(session)
        returned: BaseException | None = await session.run_sync(body)
        return returned

    def run(self, body: Body) -> BaseException | None:
        bystanders = self.tasks()
        try:
            return self.wait_for(self.left_by(body))
        except (KeyboardInterrupt, SystemExit) as interrupt:
            # Out of a task below the block's: it stops the loop.
            self.settle(bystanders)
            return interrupt

    def listen(self, heard: Heard) -> None:
        self._free_loop().get_loop().set_exception_handler(heard.of_loop)

    def tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self._free_loop().get_loop())

    def settle(self, bystanders: set[asyncio.Task[Any]]) -> BaseException | None:
        if not self.tasks() - bystanders:
            return None
        try:
            self.wait_for(_end_all_but(bystanders))
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self.wait_for(_end_all_but(bystanders))
            return interrupt
        return None

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._free_loop()
        except ScopeMisuse:
            work.close()
            raise
        # As on a server: what one request leaves in its context is not of the next.
        return loop.run(work, context=copy_context())

    def _free_loop(self) -> asyncio.Runner:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop
        raise ScopeMisuse(
            "verify() was called where an event loop is running, and it needs one of "
            "its own. Call it from a test that is not async."
        )

    def call(self, work: Callable[[Any], Any], session: Any) -> Any:
        if isinstance(session, Session):
            return work(session)
        return self.wait_for(session.run_sync(work))

    def look(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        return self.wait_for(look(engine, work))

    def dispose(self, engine: Engine) -> None:
        if not engine.dialect.is_async:
            return super().dispose(engine)
        from sqlalchemy.ext.asyncio import AsyncEngine

        return self.wait_for(AsyncEngine(engine).dispose())

    def close(self) -> None:
        self._loop.close()


class InAsyncWith(InTask):
    """A block of an `async with` statement."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        super().__init__()
        self._make = make

    async def left_by(self, body: Body) -> BaseException | None:
        try:
            async with self._make() as session:
                raise_if_any(await self.work_on(session, body))
        except BaseException as error:
            return error
        return None


async def _end_all_but(bystanders: set[asyncio.Task[Any]]) -> None:
    """Have the tasks end that an interrupt has left behind."""
    others = asyncio.all_tasks() - bystanders - {asyncio.current_task()}
    if others:
        _, pending = await asyncio.wait(others, timeout=1)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=1)


async def look(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Do something on a connection of one's own, from a running loop."""
    if not engine.dialect.is_async:
        with engine.begin() as connection:
            return work(connection)
    from sqlalchemy.ext.asyncio import AsyncEngine

    async with AsyncEngine(engine).begin() as async_connection:
        return await async_connection.run_sync(work)


def checked(session: Any) -> Any:
    """Return what is a session, of either kind."""
    if not isinstance(session, Session) and not hasattr(session, "run_sync"):
        raise TypeError(f"{describe(session)} was given for a session")
    return session


def raise_if_any(error: BaseException | None) -> None:
    if error is not None:
        raise error
