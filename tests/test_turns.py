"""A session that threads take turns with: what they wait for, and its looks."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest
import sqlmodel
from sqlalchemy import Engine, ScalarResult, event, select, text
from sqlalchemy.exc import MultipleResultsFound
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker

from models import Note, stored
from safesession import ScopeMisuse
from safesession._threads import ThreadExit
from safesession._turns import _result_class, guard_of, open_guarded


@pytest.fixture(autouse=True)
def no_classes_of_other_tests() -> None:
    """Have the classes of results be made anew: they are what is tested."""
    _result_class.cache_clear()


def guarded(bind: Any, class_: type[Session] = Session) -> Session:
    session = open_guarded(lambda: class_(bind))
    assert session is not None
    return session


def end_of_cancelled_request(session: Session) -> None:
    asyncio.run(ThreadExit(session, ()).leave(asyncio.CancelledError()))


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.execute(text("SELECT 1")),
        lambda session: session.scalar(text("SELECT 1")),
        lambda session: session.scalars(text("SELECT 1")),
        lambda session: session.get(Note, 1),
        lambda session: session.get_one(Note, 1),
        lambda session: session.query(Note).all(),
        lambda session: session.merge(Note(id=1)),
        lambda session: session.connection(),
        lambda session: session.flush(),
        lambda session: session.begin(),
        lambda session: session.begin_nested(),
        lambda session: session.prepare(),
        lambda session: session.commit(),
        lambda session: session.rollback(),
        lambda session: session.close(),
        lambda session: session.reset(),
        lambda session: session.invalidate(),
        lambda session: session.bulk_save_objects([Note(text="bulk")]),
        lambda session: session.bulk_insert_mappings(Note, [{"text": "bulk"}]),
        lambda session: session.bulk_update_mappings(Note, [{"id": 1, "text": "bulk"}]),
    ],
)
def test_call_after_the_exit_of_a_cancelled_request(
    engine: Engine, call: Callable[[Session], object]
) -> None:
    """Whatever could check out a connection, or give one up, is refused."""
    session = guarded(engine)
    end_of_cancelled_request(session)

    with pytest.raises(ScopeMisuse, match="was cancelled"):
        call(session)


READINGS: dict[str, Callable[[Any], object]] = {
    "next": lambda result: next(result),
    "iter": lambda result: list(iter(result)),
    "all": lambda result: result.all(),
    "fetchone": lambda result: result.fetchone(),
    "fetchmany": lambda result: result.fetchmany(2),
    "fetchall": lambda result: result.fetchall(),
    "first": lambda result: result.first(),
    "one": lambda result: result.one(),
    "one_or_none": lambda result: result.one_or_none(),
    "scalar": lambda result: result.scalar(),
    "scalar_one": lambda result: result.scalar_one(),
    "scalar_one_or_none": lambda result: result.scalar_one_or_none(),
    "partitions": lambda result: list(result.partitions(1)),
    "freeze": lambda result: result.freeze(),
    "of scalars": lambda result: result.scalars().all(),
    "of mappings": lambda result: result.mappings().all(),
    "of columns": lambda result: result.columns(0).all(),
    "of unique": lambda result: result.unique().all(),
    "of scalars, unique": lambda result: result.scalars().unique().all(),
    "of merge": lambda result: result.merge().all(),
    "of yield_per": lambda result: list(result.yield_per(1)),
}
each_reading = pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)


@each_reading
def test_reading_after_the_exit_of_a_cancelled_request(
    engine: Engine, read: Callable[[Any], object]
) -> None:
    """A result that is open still reads no more from a connection given back."""
    session = guarded(engine)
    result = session.execute(text("SELECT 1 UNION SELECT 2"))
    end_of_cancelled_request(session)

    with pytest.raises(ScopeMisuse, match="was cancelled"):
        read(result)


def test_closing_a_result_after_the_exit_of_a_cancelled_request(engine: Engine) -> None:
    """Its cursor went with the session."""
    session = guarded(engine)
    result = session.execute(text("SELECT 1 UNION SELECT 2"))
    end_of_cancelled_request(session)

    with pytest.raises(ScopeMisuse, match="was cancelled"):
        result.close()


def test_rest_of_an_iteration_after_the_exit_of_a_cancelled_request(
    engine: Engine,
) -> None:
    """Nor does one that is being read."""
    session = guarded(engine)
    rows = iter(session.scalars(text("SELECT 1 UNION SELECT 2")))
    first = next(rows)
    end_of_cancelled_request(session)

    with pytest.raises(ScopeMisuse, match="was cancelled"):
        next(rows)
    assert first == 1


@pytest.fixture
def looks(engine: Engine) -> Iterator[Callable[[Session], list[bool]]]:
    """Return what has another thread tell, at each statement and row, whose turn it is.

    SQL calls it as look(), whose value is 1.
    """
    look: Callable[[], object] = object

    def look_from_another_thread(*args: object) -> int:
        thread = Thread(target=look)
        thread.start()
        thread.join()
        return 1

    def define(dbapi_connection: Any, record: object) -> None:
        dbapi_connection.create_function("look", 0, look_from_another_thread)

    def looks_at(session: Session) -> list[bool]:
        nonlocal look
        seen: list[bool] = []

        def look() -> None:
            guard = guard_of(session)
            seen.append(guard.turn.acquire(blocking=False))
            guard.give_back()

        look_from_another_thread()
        return seen

    engine.dispose()
    event.listen(engine, "connect", define)
    event.listen(engine, "before_cursor_execute", look_from_another_thread)
    return looks_at


@pytest.mark.parametrize(
    "class_, name",
    [
        (Session, "execute"),
        (Session, "scalar"),
        (Session, "scalars"),
        (sqlmodel.Session, "exec"),
    ],
)
def test_statement_has_the_turn_while_it_runs(
    engine: Engine,
    looks: Callable[[Session], list[bool]],
    class_: type[Session],
    name: str,
) -> None:
    """No other thread uses the session while a statement of it is at the database."""
    session = guarded(engine, class_)
    seen = looks(session)
    getattr(session, name)(text("SELECT 1"))
    seen += looks(session)
    session.close()

    assert [True, False, True] == seen


@each_reading
def test_reading_has_the_turn(
    engine: Engine,
    looks: Callable[[Session], list[bool]],
    read: Callable[[Any], object],
) -> None:
    """Nor while it reads on in a result."""
    session = guarded(engine)
    seen = looks(session)
    # The driver has the first row when the statement has run.
    result = session.execute(text("SELECT look() WHERE look() UNION ALL SELECT look()"))
    del seen[:]
    with suppress(MultipleResultsFound):
        read(result)
    result.close()
    session.close()

    assert seen
    assert not any(seen)


def test_result_that_a_hook_hands_on_has_the_turn_once(engine: Engine) -> None:
    """A hook may run the statement itself, by a call that is in turn already."""
    session = guarded(engine)
    inner: list[Any] = []

    def run(state: ORMExecuteState) -> Any:
        inner.append(state.session.scalars(text("SELECT 1 UNION SELECT 2")))
        return inner[0]

    event.listen(session, "do_orm_execute", run, once=True, retval=True)
    result = session.execute(select(Note))

    assert result is inner[0]
    assert type(result).__mro__.count(ScalarResult) == 1
    assert type(result).__mro__[1] is ScalarResult
    assert [1, 2] == result.all()
    session.close()


def test_no_turn_between_two_rows(
    engine: Engine, looks: Callable[[Session], list[bool]]
) -> None:
    """A slow reader holds up no exit."""
    session = guarded(engine)
    for _ in session.execute(text("SELECT 1 UNION SELECT 2")):
        assert looks(session) == [True]
    session.close()


@pytest.mark.parametrize("begin", ["begin", "begin_nested"])
@pytest.mark.parametrize("end", ["close", "commit", "prepare", "rollback"])
def test_transaction_after_the_exit_of_a_cancelled_request(
    engine: Engine, begin: str, end: str
) -> None:
    """So is what would end a transaction that was begun before."""
    session = guarded(engine)
    transaction = getattr(session, begin)()
    end_of_cancelled_request(session)

    with pytest.raises(ScopeMisuse, match="was cancelled"):
        getattr(transaction, end)()


def test_cancellation_of_an_exit_has_the_exception_as_its_context(
    engine: Engine,
) -> None:
    """A cancellation that lands in the rollback of a thread hides no cause."""
    session, error = guarded(engine), LookupError()
    session.add(Note(text="lost"))
    session.flush()
    begun, go_on = Event(), Event()

    def stall(connection: object) -> None:
        begun.set()
        go_on.wait(10)

    event.listen(engine, "rollback", stall)

    async def cancelled() -> BaseException:
        task = asyncio.create_task(ThreadExit(session, ()).leave(error))
        assert await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return caught.value

    assert asyncio.run(cancelled()).__context__ is error


def test_calls_are_passed_on(engine: Engine) -> None:
    """Arguments and results are those of the session's own methods."""
    session = guarded(engine)
    with session.begin() as transaction:
        session.execute(text("INSERT INTO note (text) VALUES (:text)"), {"text": "a"})
    assert not transaction.is_active
    assert "a" == session.scalar(select(Note.text))
    session.close()

    assert ["a"] == stored(engine)


def test_transaction_is_given_up_with_its_connection(engine: Engine) -> None:
    """`close(invalidate)` of a transaction is told what it was told."""
    session = guarded(engine)
    transaction = session.begin()
    driver_connection = session.connection().connection.driver_connection
    transaction.close(True)

    with engine.connect() as connection:
        assert connection.connection.driver_connection is not driver_connection
    session.close()


class Own(Session):
    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Say it in the user's own words."""
        return super().execute(*args, **kwargs)


@pytest.mark.parametrize("class_", [Session, sqlmodel.Session, Own])
def test_session_looks_like_one_of_its_class(
    engine: Engine, class_: type[Session]
) -> None:
    """The class has the name, the module and the signatures of the user's."""
    session = guarded(engine, class_)

    assert isinstance(session, class_)
    assert type(session).__qualname__ == class_.__qualname__
    assert type(session).__module__ == class_.__module__
    for name in ("execute", "begin"):
        own, guarded_ = getattr(class_, name), getattr(type(session), name)
        assert inspect.signature(own) == inspect.signature(guarded_)
        assert own.__doc__ == guarded_.__doc__
    session.close()


def test_class_is_made_once(engine: Engine) -> None:
    """Sessions of one class are of one class still, as caches by class expect."""
    maker = sessionmaker(engine, class_=Own)

    assert type(open_guarded(maker)) is type(open_guarded(maker))
