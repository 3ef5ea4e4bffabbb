"""Work that is run again: refused by SQLite, by PostgreSQL, or as a test has it."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import pytest
import stamina
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from models import Note, stored
from safesession import InvalidArgument, OutcomeUnknown, WriteRefused, session_scope
from safesession.retry import (
    async_in_session,
    async_run_in_session,
    in_session,
    run_in_session,
)


@pytest.fixture(autouse=True)
def no_backoff() -> Iterator[None]:
    """Have nobody wait between attempts: stamina's own mode for tests."""
    stamina.set_testing(True, attempts=10, cap=True)
    yield
    stamina.set_testing(False)


CALLS = {
    call.__name__: call
    for call in (run_in_session, in_session, async_run_in_session, async_in_session)
}
SYNC = {"run_in_session", "in_session"}


@pytest.fixture(params=CALLS)
def run(
    request: pytest.FixtureRequest, engine: Engine, async_engine: AsyncEngine
) -> Callable[..., Any]:
    """Run a function of a sync session again and again, by each of the ways."""
    call: Callable[..., Any] = CALLS[request.param]

    def run_sync(function: Callable[[Session], Any], **options: Any) -> Any:
        if call is run_in_session:
            return call(engine, function, **options)
        return call(engine, **options)(function)()

    def run_async(function: Callable[[Session], Any], **options: Any) -> Any:
        async def main() -> Any:
            async def work(session: AsyncSession) -> Any:
                assert type(session) is options.get("class_", AsyncSession)
                return await session.run_sync(function)

            try:
                if call is async_run_in_session:
                    return await call(async_engine, work, **options)
                return await call(async_engine, **options)(work)()
            finally:
                await async_engine.dispose()

        return asyncio.run(main())

    return run_sync if request.param in SYNC else run_async


class Refused:
    """Work that fails with these, one at each attempt, after it has written."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.sessions: list[Session] = []

    def __call__(self, session: Session) -> str:
        self.sessions.append(session)
        session.add(Note(text="once"))
        session.flush()
        if self._errors:
            raise self._errors.pop(0)
        return "returned"


class Driver(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("secret text")
        self.sqlstate = sqlstate


def refusal(sqlstate: str = "40001") -> OperationalError:
    return OperationalError("UPDATE note SET text = ?", ("secret",), Driver(sqlstate))


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
        f"(test_retry.Driver, SQLSTATE {sqlstate})"
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


def test_work_that_has_committed_is_not_run_again(
    run: Callable[..., Any], observer: Engine
) -> None:
    """What it committed by itself would be done twice."""
    calls: list[Session] = []

    def commit_and_fail(session: Session) -> None:
        calls.append(session)
        session.add(Note(text="committed"))
        session.commit()
        raise refusal()

    with pytest.raises(OperationalError):
        run(commit_and_fail)

    assert len(calls) == 1
    assert stored(observer) == ["committed"]


def test_savepoint_of_the_work_is_no_commit(
    run: Callable[..., Any], observer: Engine
) -> None:
    """What a savepoint has released goes with the transaction."""
    errors = [refusal()]

    def nest_and_fail(session: Session) -> None:
        # With SQLite's driver, a savepoint that is the first work is a commit.
        session.add(Note(text="around"))
        session.flush()
        with session.begin_nested():
            session.add(Note(text="nested"))
        if errors:
            raise errors.pop()

    run(nest_and_fail)

    assert stored(observer) == ["around", "nested"]


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


@pytest.mark.on("postgresql")
def test_conflict_that_commit_tells(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """Write skew under SERIALIZABLE: refused at COMMIT, and right the second time."""
    engine = make_engine(isolation_level="SERIALIZABLE", pool_size=2)
    with session_scope(engine) as session:
        session.add_all([Note(text="a"), Note(text="b")])
    found: list[list[str]] = []

    def read_one_and_change_the_other(session: Session) -> None:
        found.append(list(session.scalars(select(Note.text).order_by(Note.id))))
        if len(found) == 1:
            with session_scope(engine) as rival:
                rival.scalars(select(Note)).all()
                rival.execute(update(Note).where(Note.id == 1).values(text="rival's"))
        session.execute(update(Note).where(Note.id == 2).values(text="ours"))

    run_in_session(engine, read_one_and_change_the_other)

    assert found == [["a", "b"], ["rival's", "b"]]
    assert stored(observer) == ["ours", "rival's"]


@pytest.mark.on("sqlite")
def test_lock_of_sqlite(make_engine: Callable[..., Engine], observer: Engine) -> None:
    """SQLite says that it is busy, until the rival has ended."""
    engine = make_engine(connect_args={"timeout": 0})
    attempts: list[int] = []
    with Session(make_engine()) as rival:
        rival.add(Note(text="rival's"))
        rival.flush()

        def write(session: Session) -> None:
            attempts.append(1)
            if len(attempts) == 3:
                rival.commit()
            session.add(Note(text="ours"))

        run_in_session(engine, write)

    assert len(attempts) == 3
    assert stored(observer) == ["ours", "rival's"]


def test_decorator(engine: Engine, observer: Engine) -> None:
    """The callers pass what comes after the session, as often as they like."""
    errors: list[Exception] = []

    @in_session(sessionmaker(engine))
    def write(session: Session, *texts: str, suffix: str = "") -> int:
        """Write them."""
        session.add_all([Note(text=each + suffix) for each in texts])
        if errors:
            raise errors.pop()
        return len(texts)

    assert write("a", "b") == 2
    errors.append(refusal())
    assert write("c", suffix="!") == 1

    assert write.__name__ == "write"
    assert write.__doc__ == "Write them."
    assert stored(observer) == ["a", "b", "c!"]


@pytest.mark.anyio
async def test_async_decorator(async_engine: AsyncEngine, observer: Engine) -> None:
    """The same for a coroutine function."""
    errors = [refusal()]

    @async_in_session(async_sessionmaker(async_engine))
    async def write(session: AsyncSession, text: str) -> str:
        session.add(Note(text=text))
        await session.flush()
        if errors:
            raise errors.pop()
        return text

    assert await write("a") == "a"
    assert stored(observer) == ["a"]


def write_one(session: Session) -> None:
    session.add(Note(text="refused"))


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


@pytest.mark.parametrize("call", [run_in_session, in_session])
def test_transaction_of_somebody_else(engine: Engine, call: Callable[..., Any]) -> None:
    """A session or a connection is refused before anything is run."""
    work = (write_one,) if call is run_in_session else ()
    with engine.connect() as connection, Session(engine) as session:
        for bind, kind in ((session, "Session"), (connection, "Connection")):
            with pytest.raises(InvalidArgument) as raised:
                call(bind, *work)
            assert str(raised.value) == (
                f"{call.__name__}() got an object of type {kind} as its bind, and a "
                "transaction that was begun by somebody else cannot be run again. Pass "
                "the engine or the sessionmaker, and call it where there is no "
                "transaction yet."
            )


@pytest.mark.anyio
async def test_async_transaction_of_somebody_else(async_engine: AsyncEngine) -> None:
    """The same for those of an async engine."""
    async with async_engine.connect() as connection, AsyncSession() as session:
        for bind in (session, connection):
            with pytest.raises(InvalidArgument, match="begun by somebody else"):
                async_in_session(bind)  # type: ignore[arg-type]


def test_argument_of_the_wrong_kind_is_told_at_once(engine: Engine) -> None:
    """The decorator tells it, and not the first call."""
    with pytest.raises(InvalidArgument, match="commit_on"):
        in_session(engine, commit_on="LookupError")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="as its bind"):
        in_session("sqlite://")  # type: ignore[arg-type, var-annotated]


def test_coroutine_function_for_a_sync_session(engine: Engine) -> None:
    """Its work would not be done before the commit."""

    async def work(session: Session) -> None:
        pass

    with pytest.raises(InvalidArgument) as raised:
        run_in_session(engine, work)

    assert str(raised.value) == (
        "run_in_session() got the function work(), which is a coroutine function or a "
        "generator. A coroutine function goes with async_run_in_session()."
    )
