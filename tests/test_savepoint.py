"""A scope inside a session is a SAVEPOINT: the contract in another ambient state."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from backends import with_deferred_constraints
from models import Note, Reply, stored
from nested import AsyncNested, Nested
from safesession import session_scope
from safesession.testing._faults import Faults
from safesession.testing._harness import Body

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


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
