"""What Python says while a factory is held is told in the report, and not on stderr."""

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from safesession.testing import verify
from safesession.testing._heard import Heard
from safesession.testing._interrupts import OUTLASTS_TWO
from verified import async_by_hand, leaking

# The thread of such a connection keeps the process from ending.
left_to_the_collector = pytest.mark.skipif(
    not OUTLASTS_TWO, reason="this SQLAlchemy closes no async connection it collects"
)


@leaking
def test_task_that_goes_on_after_the_exit(
    async_engine: AsyncEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    """A session that is closed in the background was not closed in time."""
    closing: set[asyncio.Task[None]] = set()

    async def get_session() -> AsyncIterator[AsyncSession]:
        session = AsyncSession(async_engine)
        try:
            yield session
            await session.commit()
        finally:
            closing.add(task := asyncio.create_task(session.close()))
            task.add_done_callback(closing.discard)

    report = verify(get_session, ignore={9})

    assert report.broken[3].found == "the connection is not back in the pool"
    assert (
        "Python says: Task exception was never retrieved: AsyncSession.close: "
        "safesession.testing._cases.Torn."
    ) in report.notes
    assert capfd.readouterr() == ("", "")


@leaking
@left_to_the_collector
def test_exit_that_is_not_awaited(
    async_engine: AsyncEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    """A coroutine that was made, and forgotten, is what does not close the session."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        session = AsyncSession(async_engine)
        try:
            yield session
            await session.commit()
        finally:
            session.close()  # type: ignore[unused-coroutine]

    report = verify(get_session, ignore={9})

    assert report.broken[3].found == "the connection is not back in the pool"
    assert report.notes == [
        "Python says: coroutine 'AsyncSession.close' was never awaited."
    ]
    assert capfd.readouterr() == ("", "")


@leaking
def test_exit_that_leaves_connections_to_the_collector(
    async_engine: AsyncEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    """What cancellations leave of the tasks and connections is ended, and not told."""
    report = verify(
        async_by_hand(async_engine), ignore={1, 2, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15}
    )

    assert 9 in report.broken
    assert report.notes == []
    assert capfd.readouterr() == ("", "")


@leaking
@left_to_the_collector
def test_exit_that_fails_by_itself(async_engine: AsyncEngine) -> None:
    """A generator that yields twice at its end is not cancelled to see that."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        session = AsyncSession(async_engine)
        try:
            yield session
            await session.commit()
        finally:
            yield session

    report = verify(get_session)

    assert report.broken[9].found == (
        "the exit fails where nothing is cancelled: RuntimeError: generator didn't stop"
    )
    assert report.broken[9].example == (
        'session.add(Row(text="row-1"))\nsession.flush()'
    )
    assert report.broken[13].found == (
        "the endpoint ended normally, and this reached the caller: RuntimeError: "
        "generator didn't stop"
    )


@leaking
# In a unit for its own sake, and in one of those whose outcome is looked at.
@pytest.mark.parametrize("number", [2, 3])
def test_interrupt_of_a_task_in_the_background_is_raised(
    async_engine: AsyncEngine, number: int
) -> None:
    """What stops the event loop, and is none of the kit's own, ends the check."""
    tasks: list[asyncio.Task[None]] = []

    async def stop() -> None:
        # When the unit has ended, and while what it has left is waited for.
        await asyncio.sleep(0.2)
        if len(tasks) == number:
            raise SystemExit(3)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(async_engine) as session:
            yield session
        if tasks:
            await tasks[-1]
        tasks.append(asyncio.create_task(stop()))

    with pytest.raises(SystemExit) as caught:
        verify(get_session)

    assert caught.value.code == 3


def stubborn() -> Iterator[None]:
    try:
        yield
    except GeneratorExit:
        yield


def test_generator_that_yields_when_it_is_closed() -> None:
    """What the collector cannot raise is heard, once."""
    heard = Heard()

    with heard.listening():
        for _ in range(2):
            generator = stubborn()
            next(generator)
            del generator

    assert heard.notes == ["Python says: generator ignored GeneratorExit."]


def test_what_is_heard_holds_no_parameters() -> None:
    """An error of the database is told without what was to be stored."""
    heard = Heard()

    async def fail() -> None:
        raise DBAPIError("INSERT", {"text": "secret"}, OSError("secret"))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(heard.of_loop)
        failing = asyncio.create_task(fail())
        await asyncio.wait([failing])

    with heard.listening():
        asyncio.run(main())

    assert heard.notes == [
        (
            "Python says: Task exception was never retrieved: "
            "test_what_is_heard_holds_no_parameters.<locals>.fail: "
            "sqlalchemy.exc.DBAPIError (OSError)."
        )
    ]


def test_what_is_said_outside_of_a_task() -> None:
    """What a callback of the loop has raised is heard too."""
    heard = Heard()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(heard.of_loop)
        loop.call_exception_handler({"message": "a transport was lost"})

    with heard.listening():
        asyncio.run(main())

    assert heard.notes == ["Python says: a transport was lost."]


def test_other_warnings_are_shown() -> None:
    """Of warnings, only those about coroutines are notes."""
    heard = Heard()

    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        show = warnings.showwarning
        with heard.listening():
            warnings.warn("a name is old", DeprecationWarning, stacklevel=1)
        assert warnings.showwarning is show

    assert heard.notes == []
    assert ["a name is old"] == [str(one.message) for one in shown]


def test_nothing_of_the_listening_is_left() -> None:
    """The loggers are as they were."""
    loggers = [*map(logging.getLogger, ("asyncio", "sqlalchemy"))]
    handlers = [[*logger.handlers] for logger in loggers]

    with Heard().listening():
        assert handlers != [logger.handlers for logger in loggers]

    assert handlers == [logger.handlers for logger in loggers]
