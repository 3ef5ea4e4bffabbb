"""Work that is run again: refused by SQLite, by PostgreSQL, or as a test has it."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import stamina
from sqlalchemy import Engine, create_engine, event, func, insert, select, text, update
from sqlalchemy.exc import (
    IntegrityError,
    InvalidRequestError,
    OperationalError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from stamina.instrumentation import set_on_retry_hooks

from models import Base, Note, stored
from safesession import (
    EngineNotConfigured,
    InvalidArgument,
    OutcomeUnknown,
    WriteRefused,
    session_scope,
)
from safesession._begun import begun_by
from safesession.retry import (
    RetryMiddleware,
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


@pytest.mark.parametrize("first", [True, False])
def test_savepoint_of_the_work_is_no_commit(
    run: Callable[..., Any], observer: Engine, first: bool
) -> None:
    """What a savepoint has released goes with the transaction."""
    errors = [refusal()]

    def nest_and_fail(session: Session) -> None:
        # To SQLite's driver, a savepoint that is the first work is a transaction.
        if not first:
            session.add(Note(text="around"))
            session.flush()
        with session.begin_nested():
            session.add(Note(text="nested"))
        if errors:
            raise errors.pop()

    run(nest_and_fail)

    assert stored(observer) == ["around"] * (not first) + ["nested"]


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
        maker = async_sessionmaker(binds={Note: connection})
        with pytest.raises(InvalidArgument, match="sessions join a connection"):
            await async_run_in_session(maker, work_for("async_run_in_session"))


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


def test_hook_that_fails_after_the_commit(
    run: Callable[..., Any], observer: Engine
) -> None:
    """The work is done, whatever a listener of the commit raises then."""
    errors = [refusal()]

    def fail(session: Session) -> None:
        if errors:
            raise errors.pop()

    # For every session, and so told before any listener of one of them.
    event.listen(Session, "after_commit", fail)
    try:
        with pytest.raises(OperationalError):
            run(Refused())
    finally:
        event.remove(Session, "after_commit", fail)

    assert stored(observer) == ["once"]


def test_commit_of_a_connection_is_one(
    run: Callable[..., Any], observer: Engine
) -> None:
    """It commits what the session has done, without the session's events."""

    def commit_and_fail(session: Session) -> None:
        session.add(Note(text="committed"))
        session.flush()
        session.connection().commit()
        raise refusal()

    with pytest.raises(OperationalError):
        run(commit_and_fail)

    assert stored(observer) == ["committed"]


def test_autocommit_commits_each_statement(
    run: Callable[..., Any], observer: Engine
) -> None:
    """There is no transaction that could be refused as a whole."""
    options = {"isolation_level": "AUTOCOMMIT"}

    def write_and_fail(session: Session) -> None:
        session.connection(execution_options=options)
        session.add(Note(text="committed"))
        session.flush()
        raise refusal()

    with pytest.raises(OperationalError):
        run(write_and_fail)

    assert stored(observer) == ["committed"]


@pytest.mark.on("sqlite")
def test_commit_in_text_is_not_seen(engine: Engine, observer: Engine) -> None:
    """It is as documented, and the work is done twice."""
    errors = [refusal()]

    def write(session: Session) -> None:
        session.add(Note(text=f"with {len(errors)} left"))
        session.flush()
        session.execute(text("COMMIT"))
        if errors:
            raise errors.pop()

    run_in_session(engine, write)

    assert stored(observer) == ["with 0 left", "with 1 left"]


class OtherBase(DeclarativeBase):
    pass


class Elsewhere(OtherBase):
    """A row of another database."""

    __tablename__ = "elsewhere"
    id: Mapped[int] = mapped_column(primary_key=True)


@contextmanager
def commits_refused(engine: Engine) -> Iterator[Callable[[], None]]:
    """Have SQLite be busy at COMMIT until it is called, as another reads."""
    with engine.connect() as reader:
        reader.exec_driver_sql("INSERT INTO note (text) VALUES ('read')")
        reader.commit()
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM note").fetchone()
        yield reader.rollback


@pytest.mark.on("sqlite")
def test_commit_on_one_of_two_connections(
    make_engine: Callable[..., Engine], observer: Engine, tmp_path: Path
) -> None:
    """What one has committed stays so, where the other's COMMIT is refused."""
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    OtherBase.metadata.create_all(other)
    hurried = make_engine(connect_args={"timeout": 0})
    calls: list[int] = []

    class Both(Session):
        pass

    def write_both(session: Session) -> None:
        calls.append(1)
        session.add_all([Note(text="refused"), Elsewhere()])

    # As SQLAlchemy does, but in an order that is not by chance.
    @event.listens_for(Both, "before_commit")
    def commit_each(session: Session) -> None:
        session.flush()
        for connection in sorted(
            begun_by(session), key=lambda connection: connection.engine is not other
        ):
            connection.commit()

    maker = sessionmaker(class_=Both, binds={Note: hurried, Elsewhere: other})
    with commits_refused(make_engine()), pytest.raises(OperationalError):
        run_in_session(maker, write_both, attempts=3)

    with other.connect() as connection:
        assert connection.scalar(select(func.count(Elsewhere.id))) == 1
    other.dispose()
    assert len(calls) == 1
    assert stored(observer) == ["read"]


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("commits", ["scope", "session", "connection"])
def test_refused_commit_is_no_commit(
    make_engine: Callable[..., Engine], observer: Engine, commits: str
) -> None:
    """By whatever it was asked for: nothing of it is done."""
    engine = make_engine(connect_args={"timeout": 0})
    calls: list[int] = []

    def write(session: Session) -> None:
        calls.append(1)
        if len(calls) == 3:
            let_commit()
        session.add(Note(text="around"))
        session.flush()
        # The connection is begun once more, for the savepoint.
        with session.begin_nested():
            session.add(Note(text="nested"))
        if commits == "session":
            session.commit()
        if commits == "connection":
            session.connection().commit()

    with commits_refused(make_engine()) as let_commit:
        if commits == "connection":
            # The session finds out that its transaction is gone.
            with suppress(InvalidRequestError):
                run_in_session(engine, write)
        else:
            run_in_session(engine, write)

    assert len(calls) == 3
    assert stored(observer) == ["around", "nested", "read"]


@pytest.mark.on("sqlite")
def test_commit_that_succeeds_after_one_was_refused(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """It stands, though the error of the first is what leaves."""
    engine = make_engine(connect_args={"timeout": 0})
    calls: list[int] = []

    def write(session: Session) -> None:
        calls.append(1)
        session.add(Note(text="refused"))
        with pytest.raises(OperationalError) as refused:
            session.commit()
        session.rollback()
        let_commit()
        session.add(Note(text="committed"))
        session.commit()
        raise refused.value

    with commits_refused(make_engine()) as let_commit, pytest.raises(OperationalError):
        run_in_session(engine, write)

    assert len(calls) == 1
    assert stored(observer) == ["committed", "read"]


@pytest.mark.on("postgresql", "mariadb")
def test_commit_of_two_phases(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """It is one, too; and nothing is committed by what it is prepared with."""
    maker = sessionmaker(make_engine(), twophase=True)
    errors = [refusal(), refusal()]

    def write(session: Session) -> None:
        session.add(Note(text="committed"))
        session.flush()
        if len(errors) > 1:
            raise errors.pop()
        (connection,) = begun_by(session)
        transaction: Any = connection.get_transaction()
        transaction.prepare()
        transaction.commit()
        raise errors.pop()

    with pytest.raises(OperationalError):
        run_in_session(maker, write)

    assert errors == []
    assert stored(observer) == ["committed"]


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("succeeds", [True, False])
def test_commit_on_an_exception_that_is_refused(
    make_engine: Callable[..., Engine], observer: Engine, succeeds: bool
) -> None:
    """The audit row is written by another attempt, before the exception leaves."""
    engine = make_engine(connect_args={"timeout": 0})
    calls: list[LookupError] = []

    def audit(session: Session) -> None:
        calls.append(LookupError())
        if succeeds and len(calls) == 3:
            let_commit()
        session.add(Note(text="audit"))
        raise calls[-1]

    with (
        commits_refused(make_engine()) as let_commit,
        pytest.raises(LookupError) as raised,
    ):
        run_in_session(engine, audit, commit_on=LookupError, attempts=4)

    notes = raised.value.__notes__
    busy = "sqlalchemy.exc.OperationalError (sqlite3.OperationalError: database is "
    assert raised.value is calls[-1]
    assert len(calls) == 3 + (not succeeds)
    assert len(notes) == len(calls) - succeeds
    assert notes[-1] == (
        f"safesession: attempt {len(calls) - 1} of the function audit() failed: "
        f"{busy}locked)"
    )
    assert stored(observer) == ["audit"] * succeeds + ["read"]


def test_listeners_stay_with_the_session(engine: Engine) -> None:
    """Nothing is left on the engine, or on a connection of somebody else."""

    class Lent(Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            return connection

    with engine.connect() as connection:
        connection.execute(select(Note))
        with pytest.raises(OperationalError):
            run_in_session(engine, Refused(refusal()), class_=Lent)
        assert not connection._has_events

    assert not engine._has_events


@pytest.mark.parametrize(
    "how", ["sessionmaker", "callable", "maker's callable", "binds", "one of binds"]
)
def test_connection_of_somebody_else_by_another_way(
    run: Callable[..., Any], engine: Engine, observer: Engine, how: str
) -> None:
    """Its owner's transaction goes on, as nothing was run in it."""
    work = Refused(refusal())
    with engine.connect() as connection:
        connection.execute(insert(Note).values(text="outer"))
        maker = sessionmaker(connection)
        bind: Any = {
            "sessionmaker": maker,
            "callable": lambda: connection,
            "maker's callable": lambda: maker,
            "binds": sessionmaker(binds={Note: connection}),
            "one of binds": sessionmaker(engine, binds={Base: connection}),
        }[how]

        with pytest.raises(InvalidArgument) as raised:
            run_in_session(bind, work)
        connection.commit()

    given = "an object of type sessionmaker"
    if "callable" in how:
        given = "the function <lambda>()"
    assert str(raised.value) == (
        f"run_in_session() got {given} as its bind, whose sessions join a connection, "
        "and a transaction that was begun by somebody else cannot be run again. Pass "
        "the engine or the sessionmaker, and call it where there is no transaction yet."
    )
    assert work.sessions == []
    assert stored(observer) == ["outer"]


@pytest.mark.parametrize("by_class", [True, False])
@pytest.mark.parametrize("mode", ["create_savepoint", "conditional_savepoint"])
def test_savepoint_in_a_transaction_of_somebody_else(
    engine: Engine, observer: Engine, mode: Any, by_class: bool
) -> None:
    """As tests have it: each attempt is a savepoint, and the rest is as it was."""
    with engine.connect() as connection:
        connection.execute(insert(Note).values(text="outer"))
        connection.begin_nested()
        binds: dict[str, Any] = {"binds": {Note: connection}}
        binds = binds if by_class else {"bind": connection}
        maker = sessionmaker(**binds, join_transaction_mode=mode)

        assert run_in_session(maker, Refused(refusal())) == "returned"
        with pytest.raises(OperationalError):
            run_in_session(maker, commit_and_fail)
        connection.commit()

    assert stored(observer) == ["committed", "once", "outer"]


def commit_and_fail(session: Session) -> None:
    session.add(Note(text="committed"))
    session.commit()
    raise refusal()


def test_notes_on_errors_that_are_raised_again(engine: Engine) -> None:
    """Each failure is told once, also where each is the same error."""
    same, other = refusal(), refusal()
    left: list[Exception] = []

    def fail(session: Session) -> None:
        raise left.pop(0)

    told = [
        f"safesession: attempt {number} of the function fail() failed: "
        "sqlalchemy.exc.OperationalError (test_retry.Driver, SQLSTATE 40001)"
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


@pytest.mark.parametrize(
    "options, told",
    [
        ({"attempts": "5"}, "an object of type str as attempts"),
        ({"attempts": True}, "an object of type bool as attempts"),
        ({"attempts": 0}, "0 as attempts"),
        ({"attempts": -1}, "-1 as attempts"),
        ({"attempts": 1.5}, "1.5 as attempts"),
        ({"timeout": "5"}, "an object of type str as timeout"),
        ({"timeout": True}, "an object of type bool as timeout"),
        ({"timeout": 0}, "0 as timeout"),
        ({"timeout": -0.5}, "-0.5 as timeout"),
        ({"timeout": float("nan")}, "nan as timeout"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [*CALLS, "RetryMiddleware"])
def test_limits_that_are_none(
    engine: Engine, async_engine: AsyncEngine, call: str, options: Any, told: str
) -> None:
    """They are refused by the call, which says what to pass instead."""
    remedy = {
        "attempts": "Pass how many attempts there may be, 1 or more; or None for no "
        "limit.",
        "timeout": "Pass for how many seconds attempts may follow, more than 0; or "
        "None for no limit.",
    }[next(iter(options))]

    with pytest.raises(InvalidArgument) as raised:
        calling(call, engine if call in SYNC else async_engine, write_one, options)

    assert str(raised.value) == f"{call}() got {told}. {remedy}"


def calling(call: str, bind: Any, function: Any, options: Any) -> Any:
    """Make the call with a bind and a function, or the middleware."""
    if call == "RetryMiddleware":
        return RetryMiddleware(bind, **options)
    if call.endswith("in_session") and "run" not in call:
        return CALLS[call](bind, **options)(function)
    if call == "run_in_session":
        return run_in_session(bind, function, **options)
    return asyncio.run(async_run_in_session(bind, function, **options))


def test_limits_that_are_some(run: Callable[..., Any], observer: Engine) -> None:
    """The least attempts, the shortest time, and no limit at all."""
    for number, options in enumerate(
        ({"attempts": 1}, {"timeout": 0.001}, {"attempts": None, "timeout": None})
    ):
        run(lambda session, text=str(number): session.add(Note(text=text)), **options)

    assert stored(observer) == ["0", "1", "2"]


@pytest.mark.parametrize("call", CALLS)
def test_errors_name_the_call(
    engine: Engine, async_engine: AsyncEngine, call: str
) -> None:
    """It is the one that was made, whatever it makes use of."""
    mine, others = (engine, async_engine) if call in SYNC else (async_engine, engine)
    other_call = call[6:] if call.startswith("async_") else f"async_{call}"
    kinds = "Engine or sessionmaker"
    if call not in SYNC:
        kinds = "AsyncEngine or async_sessionmaker"

    def told(bind: Any, **options: Any) -> str:
        with pytest.raises((InvalidArgument, EngineNotConfigured)) as raised:
            calling(call, bind, work_for(call), options)
        return str(raised.value)

    assert told(others) == (
        f"{call}() got an object of type {type(others).__name__} as its bind. That one "
        f"goes with {other_call}(). Pass an instance of {kinds}, or a callable that "
        "returns one."
    )
    assert told(mine, class_=int).startswith(f"{call}() got the class int as class_.")
    assert told(mine, commit_on=5).startswith(f"{call}() got an object of type int in")
    if "run" in call:
        assert told(None) == (
            f"{call}() has no engine to open a session on: the bind is None. Configure "
            "the engine before the work is run."
        )
        assert told(lambda: 5).startswith(f"{call}() got an object of type int from")


def work_for(call: str) -> Any:
    async def work(session: Any) -> None:
        """Do nothing."""

    return write_one if call in SYNC else work


@pytest.mark.parametrize("call", CALLS)
def test_function_that_cannot_be_called(
    engine: Engine, async_engine: AsyncEngine, call: str
) -> None:
    """It is refused by the call, as is what has no session for a first argument."""
    bind = engine if call in SYNC else async_engine

    with pytest.raises(InvalidArgument) as raised:
        calling(call, bind, "work", {})

    assert str(raised.value) == (
        f"{call}() got an object of type str as its function. Pass what can be called "
        "with the session."
    )


@pytest.mark.parametrize("call", ["in_session", "async_in_session"])
def test_decorator_without_its_parentheses(call: str) -> None:
    """What was to be decorated is told from a callable that returns an engine."""

    def pay(session: Session, amount: int) -> None:
        """Pay it."""

    async def async_pay(session: AsyncSession) -> None:
        """Pay."""

    function: Any = pay if call in SYNC else async_pay
    with pytest.raises(InvalidArgument) as raised:
        CALLS[call](function)

    assert str(raised.value) == (
        f"{call}() got the function {function.__name__}() as its bind, and that takes "
        f"arguments. To decorate a function, write @{call}(engine) above it."
    )


def test_decorator_with_a_callable(engine: Engine, observer: Engine) -> None:
    """It is asked for its engine with each attempt, and not before."""
    engines: list[Engine] = []

    @in_session(lambda: engines[-1])
    def write(session: Session) -> None:
        session.add(Note(text="written"))

    engines.append(engine)
    write()

    assert stored(observer) == ["written"]


@pytest.mark.parametrize("call", ["in_session", "async_in_session"])
def test_decorator_of_a_method(
    engine: Engine, async_engine: AsyncEngine, call: str
) -> None:
    """Its first argument is not the session."""
    bind = engine if call in SYNC else async_engine
    with pytest.raises(InvalidArgument) as raised:

        class Repository:
            if call in SYNC:

                @in_session(engine)
                def save(self, session: Session) -> None:
                    """Save it."""

            else:

                @async_in_session(bind)  # type: ignore[arg-type]
                async def save(self, session: AsyncSession) -> None:
                    """Save it."""

    assert str(raised.value) == (
        f"{call}() got the function save(), whose first argument is self, and the "
        "session has to be. Decorate a function, and call it from the method."
    )


def test_signature_is_without_the_session(engine: Engine) -> None:
    """Who looks at it, as FastAPI does, finds what the callers pass."""

    @in_session(engine)
    def add(session: Session, /, text: "str", *, suffix: str = "!") -> "int":
        return len(text)

    @in_session(engine)
    def count(*args: Any, **kwargs: Any) -> int:
        return len(args)

    @in_session(engine)
    def nothing() -> None:
        """Take nothing."""

    assert str(signature(add)) == "(text: 'str', *, suffix: str = '!') -> 'int'"
    assert get_type_hints(add) == {"text": str, "suffix": str, "return": int}
    assert list(signature(count).parameters) == ["args", "kwargs"]
    assert count(1, 2) == 3
    assert list(signature(nothing).parameters) == []


def test_callable_without_a_signature(engine: Engine) -> None:
    """Some of Python's own have none."""
    assert isinstance(in_session(engine, class_=Empty)(dict)(a=1), dict)


class Empty(Session):
    """A session that dict() takes for pairs."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def keys(self) -> Any:
        return ()


def test_result_to_await_of_a_sync_session(engine: Engine, observer: Engine) -> None:
    """Its work would not be done before the commit."""

    async def work(session: Session) -> None:
        raise AssertionError

    def begin(session: Session) -> Any:
        session.add(Note(text="rolled back"))
        return work(session)

    with pytest.raises(InvalidArgument) as raised:
        run_in_session(engine, begin)
    with pytest.raises(InvalidArgument):
        run_in_session(engine, lambda session: ToAwait())

    assert str(raised.value) == (
        "run_in_session() got the function begin(), which returned what is to be "
        "awaited: its work was rolled back. It goes with async_run_in_session()."
    )
    assert stored(observer) == []


class ToAwait:
    def __await__(self) -> Any:
        raise AssertionError


@pytest.mark.anyio
async def test_function_that_is_not_to_be_awaited(
    async_engine: AsyncEngine, observer: Engine
) -> None:
    """A decorator refuses it, and a call rolls back what it did."""

    async def work(session: AsyncSession, text: str = "ours") -> str:
        session.add(Note(text=text))
        return text

    class Callable:
        async def __call__(self, session: AsyncSession) -> str:
            return "called"

    with pytest.raises(InvalidArgument) as raised:
        async_in_session(async_engine)(write_one)
    assert str(raised.value) == (
        "async_in_session() got the function write_one(), which is no coroutine "
        "function. Define it by 'async def'; a function of a sync session goes with "
        "in_session()."
    )
    with pytest.raises(InvalidArgument) as raised:
        await async_run_in_session(
            async_engine, lambda session: session.add(Note(text="x"))
        )
    assert str(raised.value) == (
        "async_run_in_session() got the function <lambda>(), which returned nothing "
        "to await: its work was rolled back. It goes with run_in_session()."
    )
    for function in (Callable(), partial(work, text="by partial")):
        await async_in_session(async_engine)(function)()
    assert (
        await async_run_in_session(async_engine, lambda session: work(session))
        == "ours"
    )
    assert stored(observer) == ["by partial", "ours"]


def test_name_that_instrumentation_tells(engine: Engine, observer: Engine) -> None:
    """It is that of the function, or of its class, as with stamina's own decorator."""
    names: list[str] = []
    errors = [refusal()]

    def work(session: Session) -> None:
        if errors:
            raise errors.pop()

    set_on_retry_hooks([lambda details: names.append(details.name)])
    try:
        run_in_session(engine, work)
        run_in_session(engine, Refused(refusal()))
    finally:
        set_on_retry_hooks(None)

    assert names == [f"{__name__}.{work.__qualname__}", f"{__name__}.Refused"]
