"""Work that is refused is run again, in a session of its own each time."""

import asyncio
import logging
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import stamina
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from models import Note, stored
from retried import CALLS, Driver, Refused, refusal, write_one
from safesession import OutcomeUnknown, WriteRefused
from safesession.retry import async_run_in_session, run_in_session

pytestmark = pytest.mark.usefixtures("no_backoff")
pytest_plugins = ("retry_fixtures",)


def test_work_that_is_refused_is_run_again(
    run: Callable[..., Any], observer: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """Each attempt has a session of its own, and one of them is committed."""
    work = Refused(refusal(), refusal("40P01"))

    assert run(work) == "returned"

    assert stored(observer) == ["once"]
    assert len(set(map(id, work.sessions))) == 3
    records = [each for each in caplog.records if each.name == "safesession"]
    assert [(each.levelno, each.getMessage()) for each in records] == [
        (
            logging.WARNING,
            f"safesession: {told(run, number, code)}",
        )
        for number, code in ((1, "40001"), (2, "40P01"))
    ]


def told(run: Callable[..., Any], number: int, sqlstate: str) -> str:
    is_sync = run.__name__ == "run_sync"
    work = "an object of type Refused" if is_sync else "the function work()"
    return (
        f"attempt {number} of {work} failed: sqlalchemy.exc.OperationalError "
        f"(retried.Driver, SQLSTATE {sqlstate})"
    )


def test_last_error_leaves_with_notes_of_those_before(
    run: Callable[..., Any], observer: Engine
) -> None:
    """It is the very one that was raised, and nothing is committed."""
    errors = [refusal(), refusal(), refusal("40P01")]

    with pytest.raises(OperationalError) as raised:
        run(Refused(*errors), attempts=3)

    assert raised.value is errors[-1]
    assert raised.value.__notes__ == [
        f"safesession: {told(run, number, '40001')}" for number in (1, 2)
    ]
    assert stored(observer) == []


@pytest.mark.parametrize(
    "error",
    [
        LookupError("of the work's own"),
        IntegrityError("INSERT", {}, Driver("23505")),
        OutcomeUnknown(None, None, Driver("08006"), connection_invalidated=True),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_error_leaves_at_once(
    run: Callable[..., Any], observer: Engine, error: BaseException
) -> None:
    """What would fail again, or may have been done, is run once."""
    work = Refused(error)

    with pytest.raises(type(error)) as raised:
        run(work)

    assert raised.value is error
    assert not hasattr(error, "__notes__")
    assert len(work.sessions) == 1
    assert stored(observer) == []


def test_unknown_outcome_of_idempotent_work(
    run: Callable[..., Any], observer: Engine
) -> None:
    """Who says that it may be done twice has it run again."""
    unknown = OutcomeUnknown(None, None, Driver("08006"), connection_invalidated=True)

    assert run(Refused(unknown), idempotent=True) == "returned"
    assert stored(observer) == ["once"]


def test_attempts_are_limited(run: Callable[..., Any]) -> None:
    """There are as many as was said, and ten where nothing was."""
    stamina.set_testing(True, attempts=100, cap=True)
    for options, expected in (({"attempts": 2}, 2), ({}, 10)):
        work = Refused(*(refusal() for _ in range(100)))

        with pytest.raises(OperationalError):
            run(work, **options)

        assert len(work.sessions) == expected


def test_time_is_limited(run: Callable[..., Any]) -> None:
    """There is no attempt after the time that was given."""
    stamina.set_testing(False)
    work = Refused(*(refusal() for _ in range(100)))

    with pytest.raises(OperationalError):
        run(work, attempts=50, timeout=0.3)

    assert 2 <= len(work.sessions) < 50


def test_defaults() -> None:
    """They are as documented, and the same for each of the ways."""
    for call in CALLS.values():
        parameters = signature(call).parameters
        assert parameters["attempts"].default == 10
        assert parameters["timeout"].default == 30
        assert parameters["idempotent"].default is False


class MySession(Session):
    pass


class MyAsyncSession(AsyncSession):
    pass


def test_options_are_those_of_the_scope(
    run: Callable[..., Any], observer: Engine
) -> None:
    """What is passed for the scope is passed on to it."""

    def fail(session: Session) -> None:
        session.add(Note(text="kept"))
        raise LookupError

    with pytest.raises(LookupError):
        run(fail, commit_on=LookupError)
    with pytest.raises(WriteRefused):
        run(write_one, read_only=True)
    is_sync = run.__name__ == "run_sync"
    found = run(
        lambda session: type(session), class_=MySession if is_sync else MyAsyncSession
    )

    assert found is (MySession if is_sync else Session)
    assert stored(observer) == ["kept"]


@pytest.mark.anyio
async def test_cancellation_leaves_at_once(
    async_engine: AsyncEngine, observer: Engine
) -> None:
    """A cancelled attempt is the last one."""
    begun = asyncio.Event()

    async def wait(session: AsyncSession) -> None:
        session.add(Note(text="cancelled"))
        await session.flush()
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(async_run_in_session(async_engine, wait))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert stored(observer) == []


def test_notes_on_errors_that_are_raised_again(engine: Engine) -> None:
    """Each failure is told once, also where each is the same error."""
    same, other = refusal(), refusal()
    left: list[Exception] = []

    def fail(session: Session) -> None:
        raise left.pop(0)

    told = [
        f"safesession: attempt {number} of the function fail() failed: "
        "sqlalchemy.exc.OperationalError (retried.Driver, SQLSTATE 40001)"
        for number in (1, 2, 3)
    ]

    for errors in ([same] * 4, [other, same] * 2, [other, same] * 2):
        left.extend(errors)
        with pytest.raises(OperationalError) as raised:
            run_in_session(engine, fail, attempts=4)

        assert raised.value.__notes__ == told


def test_note_on_an_error_that_is_not_followed(engine: Engine) -> None:
    """The failure before it is told, also by the same error."""
    error = refusal()
    calls: list[int] = []

    def fail(session: Session) -> None:
        calls.append(1)
        if len(calls) == 2:
            session.add(Note(text="committed"))
            session.commit()
        raise error

    with pytest.raises(OperationalError):
        run_in_session(engine, fail)

    assert len(calls) == 2
    (note,) = error.__notes__
    assert note.startswith("safesession: attempt 1 of the function fail() failed:")


def test_name_that_instrumentation_tells(
    engine: Engine, observer: Engine, on_retry: Callable[[Any], None]
) -> None:
    """It is that of the function, or of its class, as with stamina's own decorator."""
    names: list[str] = []
    errors = [refusal()]

    def work(session: Session) -> None:
        if errors:
            raise errors.pop()

    on_retry(lambda details: names.append(details.name))
    run_in_session(engine, work)
    run_in_session(engine, Refused(refusal()))

    assert names == [f"{__name__}.{work.__qualname__}", "retried.Refused"]
