"""A scope inside a session is a SAVEPOINT: the contract in another ambient state."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, create_engine, event, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker

from backends import with_deferred_constraints
from contract import dispose, in_transaction, left_by, left_by_async
from models import Note, Reply, stored
from safesession import async_session_scope, session_scope
from safesession.testing._faults import Faults
from safesession.testing._harness import Body

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


class Left(NamedTuple):
    inner: BaseException | None
    outer: BaseException | None


class Nested:
    """Runs one scope inside another; what leaves the inner is caught in the outer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(
        self,
        inner: Body,
        *,
        before: Body = lambda session: None,
        after: Body = lambda session: None,
        **options: Any,
    ) -> Left:
        left: list[BaseException | None] = []

        def outer(session: Session) -> BaseException | None:
            before(session)
            left.append(left_by(session_scope(session, **options), inner))
            return after(session)

        return Left(outer=left_by(session_scope(self.engine), outer), inner=left[0])

    def close(self) -> None:
        self.engine.dispose()


class AsyncNested(Nested):
    def __init__(self, async_engine: AsyncEngine) -> None:
        self.engine = async_engine.sync_engine
        self._async_engine = async_engine
        self._loop = asyncio.Runner()

    def run(
        self,
        inner: Body,
        *,
        before: Body = lambda session: None,
        after: Body = lambda session: None,
        **options: Any,
    ) -> Left:
        async def outer() -> Left:
            left_inner = None
            try:
                async with async_session_scope(self._async_engine) as session:
                    await session.run_sync(before)
                    nested = async_session_scope(session, **options)
                    left_inner = await left_by_async(nested, inner)
                    error = await session.run_sync(after)
                    if error is not None:
                        raise error
            except BaseException as error:
                return Left(left_inner, error)
            return Left(left_inner, None)

        return self._loop.run(outer())

    def close(self) -> None:
        self._loop.run(dispose(self._async_engine))
        self._loop.close()


@pytest.fixture
def nested(
    request: pytest.FixtureRequest,
    make_engine: Callable[..., Engine],
    make_async_engine: Callable[..., AsyncEngine],
) -> Iterator[Nested]:
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 2}
    if request.param == "AsyncNested":
        nested: Nested = AsyncNested(make_async_engine(**options))
    else:
        nested = Nested(make_engine(**options))
    nested.run(add("warm"), after=lambda session: ValueError())
    yield nested
    nested.close()


def add(text: str, error: BaseException | None = None) -> Body:
    """Return a body that adds a note, and has `error` raised after it."""

    def body(session: Session) -> BaseException | None:
        session.add(Note(text=text))
        session.flush()
        return error

    return body


def test_savepoint_is_released_and_committed_with_the_outer_scope(
    nested: Nested, observer: Engine
) -> None:
    """An inner scope that ends normally is kept if the outer one is."""
    assert nested.run(add("inner"), after=add("outer")) == (None, None)
    assert stored(observer) == ["inner", "outer"]


def test_outer_session_is_given_and_stays_open(engine: Engine) -> None:
    """The inner scope yields the session it was given, and leaves it open."""
    with session_scope(engine) as outer:
        with session_scope(outer) as inner:
            assert inner is outer
        assert outer.in_transaction()
        assert not outer.in_nested_transaction()


@pytest.mark.parametrize(
    "before", [lambda session: None, lambda session: session.scalars(select(Note))]
)
def test_failing_outer_scope_undoes_a_released_savepoint(
    nested: Nested, observer: Engine, before: Body
) -> None:
    """Nothing of an inner scope is committed before the outer one, on SQLite too."""
    error = ValueError()

    left = nested.run(add("inner"), before=before, after=lambda session: error)

    assert left == (None, error)
    assert stored(observer) == []


def test_failing_inner_scope_undoes_its_own_work_alone(
    nested: Nested, observer: Engine
) -> None:
    """An exception of the inner scope rolls back to the savepoint, and leaves."""
    error = ValueError()

    left = nested.run(add("inner", error), before=add("before"), after=add("after"))

    assert left == (error, None)
    assert stored(observer) == ["after", "before"]


def test_commit_on_releases_the_savepoint(nested: Nested, observer: Engine) -> None:
    """`commit_on` keeps the work of the inner scope, and the exception leaves."""
    error = ValueError()

    assert nested.run(add("inner", error), commit_on=ValueError) == (error, None)
    assert stored(observer) == ["inner"]


def test_poisoned_savepoint_is_told_and_the_outer_scope_goes_on(
    nested: Nested, observer: Engine
) -> None:
    """A failed flush hidden in the inner scope raises, back at the savepoint."""

    def poison(session: Session) -> None:
        session.add_all([Note(text="twice"), Note(text="twice")])
        with pytest.raises(IntegrityError):
            session.flush()

    left = nested.run(poison, before=add("before"), after=add("after"))

    assert isinstance(left.inner, PendingRollbackError)
    assert left.outer is None
    assert stored(observer) == ["after", "before"]


def test_failing_flush_at_the_end_of_the_inner_scope_is_raised(
    nested: Nested, observer: Engine
) -> None:
    """What the release would write and cannot is raised, back at the savepoint."""

    def clash(session: Session) -> None:
        session.add_all([Note(text="twice"), Note(text="twice")])

    left = nested.run(clash, after=add("after"))

    assert isinstance(left.inner, IntegrityError)
    assert left.outer is None
    assert stored(observer) == ["after"]


def test_savepoint_left_open_below_is_part_of_the_inner_scope(
    nested: Nested, observer: Engine
) -> None:
    """A savepoint that the inner block leaves open ends with it."""

    def leave_open(session: Session) -> BaseException:
        session.begin_nested()
        session.add(Note(text="deep"))
        return ValueError()

    nested.run(leave_open, after=add("after"))

    assert stored(observer) == ["after"]


@pytest.mark.parametrize("end", [Session.commit, Session.rollback])
@pytest.mark.parametrize("error", [None, ValueError()])
def test_savepoint_that_the_block_has_ended_is_left_alone(
    nested: Nested,
    observer: Engine,
    end: Callable[[Session], None],
    error: BaseException | None,
) -> None:
    """A block that ends the whole transaction itself has ended the savepoint."""

    def end_all(session: Session) -> BaseException | None:
        session.add(Note(text="inner"))
        end(session)
        return error

    assert nested.run(end_all, after=add("after")) == (error, None)
    assert stored(observer) == (
        ["after", "inner"] if end is Session.commit else ["after"]
    )


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("error", [None, ValueError()])
def test_savepoint_that_the_block_has_ended_inside_another_is_left_alone(
    nested: Nested, observer: Engine, end: str, error: BaseException | None
) -> None:
    """A block that ends its savepoint itself has not ended the one around it."""

    def end_own(session: Session) -> BaseException | None:
        session.add(Note(text="inner"))
        session.flush()
        savepoint = session.get_nested_transaction()
        getattr(savepoint, end)()
        return error

    def enclosing(session: Session) -> None:
        session.begin_nested()

    left = nested.run(end_own, before=enclosing, after=add("after"))

    assert left == (error, None)
    assert not hasattr(error, "__notes__")
    assert stored(observer) == (["after", "inner"] if end == "commit" else ["after"])


def test_failing_hook_rolls_back_to_the_savepoint(
    nested: Nested, observer: Engine
) -> None:
    """A `before_flush` that refuses ends the inner scope alone."""
    refusal = ValueError("refused")

    def refuse(session: Session) -> None:
        def hook(*args: object) -> None:
            event.remove(session, "before_flush", hook)
            raise refusal

        session.add(Note(text="inner"))
        session.flush()
        session.add(Note(text="refused"))
        event.listen(session, "before_flush", hook)

    left = nested.run(refuse, after=add("after"))

    assert left == (refusal, None)
    assert stored(observer) == ["after"]


def test_hook_that_fails_after_the_release_leaves_the_outer_scope_usable(
    nested: Nested, observer: Engine
) -> None:
    """An `after_commit` that fails is raised; the savepoint is released by then."""
    refusal = ValueError("too late")

    def hook(*args: object) -> None:
        raise refusal

    def listen(session: Session) -> None:
        session.add(Note(text="inner"))
        event.listen(session, "after_commit", hook)

    def ignore(session: Session) -> None:
        event.remove(session, "after_commit", hook)

    left = nested.run(listen, after=ignore)

    assert left == (refusal, None)
    assert not hasattr(refusal, "__notes__")
    assert stored(observer) == ["inner"]


@pytest.mark.parametrize("step", ["execute RELEASE", "execute ROLLBACK TO"])
def test_outer_scope_cannot_commit_what_a_savepoint_could_not_undo(
    nested: Nested, observer: Engine, step: str
) -> None:
    """Where the savepoint itself fails, nothing is left for the outer commit."""
    failure = nested.engine.dialect.loaded_dbapi.OperationalError("disk I/O error")
    error = None if "RELEASE" in step else ValueError("the cause")

    with Faults(nested.engine, {step: failure}):
        left = nested.run(add("inner", error), before=add("before"))

    assert left.inner is not None
    assert getattr(left.inner, "orig", None) is failure or left.inner is error
    assert isinstance(left.outer, PendingRollbackError)
    assert stored(observer) == []


@with_deferred_constraints
def test_deferred_constraint_is_left_to_the_outer_commit(
    nested: Nested, observer: Engine
) -> None:
    """What the database checks at COMMIT fails there, and undoes all."""

    def orphan(session: Session) -> None:
        session.add(Reply(note_id=-1))

    left = nested.run(orphan, before=add("before"))

    assert left.inner is None
    assert isinstance(left.outer, IntegrityError)
    assert stored(observer) == []


@pytest.mark.on("sqlite")
def test_savepoint_begins_the_transaction_that_the_driver_is_set_to(
    make_engine: Callable[..., Engine],
) -> None:
    """On SQLite the transaction around the savepoint has the connection's own level."""
    engine = make_engine(connect_args={"isolation_level": "IMMEDIATE"})
    sent: list[list[str]] = []
    event.listen(
        engine, "before_cursor_execute", lambda *args: sent.append(args[2].split()[:2])
    )

    with session_scope(engine) as outer, session_scope(outer):
        outer.execute(select(1))

    assert sent[0] == ["BEGIN", "IMMEDIATE"]


def test_transactions_without_a_savepoint_are_begun_by_the_driver(
    engine: Engine,
) -> None:
    """After the savepoint, the session's transactions are the driver's again."""
    with session_scope(engine) as outer:
        with session_scope(outer):
            outer.execute(select(1))
        outer.commit()
        assert not in_transaction(outer.connection().connection.driver_connection)


def test_savepoint_elsewhere_is_preceded_by_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the database is not SQLite, the driver begins the transaction itself."""
    monkeypatch.setattr(engine.dialect, "name", "another")
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: sent.append(args[2]))

    with session_scope(engine) as outer, session_scope(outer):
        outer.execute(select(1))

    assert not any("BEGIN" in statement for statement in sent)


def test_dead_connection_is_told_by_sqlalchemy(engine: Engine) -> None:
    """A connection that died in the pool raises as in SQLAlchemy, and is replaced."""
    pooled = engine.raw_connection()
    driver_connection = pooled.driver_connection
    pooled.close()
    assert driver_connection is not None
    driver_connection.close()

    with (
        pytest.raises(DBAPIError) as caught,
        session_scope(engine) as outer,
        session_scope(outer),
    ):
        outer.execute(select(1))

    assert caught.value.connection_invalidated
    with session_scope(engine) as session:
        session.execute(select(1))


class Routing(Session):
    """A session that has no bind where it is not told for what."""

    def get_bind(self, mapper: Any = None, **options: Any) -> Any:
        if mapper is None and "clause" not in options:
            raise LookupError
        return super().get_bind(mapper, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda engine: Session(binds={Note: engine}),
        lambda engine: Session(create_engine("sqlite://"), binds={Note: engine}),
        lambda engine: Routing(engine),
        lambda engine: Session(engine, autobegin=False),
    ],
    ids=["binds", "second bind", "routing", "no autobegin"],
)
def test_savepoint_on_whatever_bind_is_used(
    engine: Engine, make: Callable[[Engine], Session]
) -> None:
    """Nothing of the savepoint is committed by itself, on whichever engine it is."""
    outer = make(engine)
    if not outer.autobegin:
        outer.begin()
    with session_scope(outer):
        outer.add(Note(text="inner"))
    outer.rollback()
    outer.close()

    assert stored(engine) == []


@pytest.mark.parametrize("hide", [False, True])
def test_failed_flush_in_a_joined_savepoint_leaves_the_owner_s_work(
    engine: Engine, hide: bool
) -> None:
    """A session that joined a connection's transaction rolls back to its savepoint."""
    with engine.connect() as connection:
        transaction = connection.begin()
        connection.execute(insert(Note).values(text="owner"))
        maker = sessionmaker(connection, join_transaction_mode="create_savepoint")
        with (
            pytest.raises(PendingRollbackError if hide else IntegrityError),
            session_scope(maker) as session,
            suppress(IntegrityError if hide else LookupError),
        ):
            session.add_all([Note(text="twice"), Note(text="twice")])
            session.flush()
        transaction.commit()

    assert stored(engine) == ["owner"]
