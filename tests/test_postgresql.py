"""What a server alone refuses: a COMMIT, a PREPARE, and all after a failure."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from contract import Habitat, assert_nothing_left
from models import Note, Reply, stored
from safesession import session_scope

pytestmark = pytest.mark.on("postgresql")


class Writes:
    """Writes a note and does something more, which may return what is to be raised."""

    def __init__(self, then: Callable[[Session], Any] = lambda session: None) -> None:
        self._then = then

    def __call__(self, session: Session) -> Any:
        self.session = session
        session.add(Note(text="lost"))
        session.flush()
        return self._then(session)


def divide_by_zero(session: Session) -> None:
    session.execute(text("SELECT 1 / 0"))


def hide_failure(session: Session) -> None:
    """Have the server refuse a statement, and with it all until a ROLLBACK."""
    with pytest.raises(DBAPIError):
        divide_by_zero(session)


def test_statement_that_failed_and_was_caught_does_not_end_normally(
    habitat: Habitat, observer: Engine
) -> None:
    """A block whose work the server has given up is told so, whoever hid the cause."""
    hide = Writes(hide_failure)

    left = habitat.run(hide)

    assert stored(observer) == []
    assert isinstance(left, PendingRollbackError)
    assert re.search(r"caught in the block: .*SQLSTATE 22012", str(left))
    assert str(left).endswith(
        "Let it leave the block, or catch it around a 'with session.begin_nested():'."
    )
    assert_nothing_left(habitat, hide.session, [])


def test_failure_that_is_named(habitat: Habitat, observer: Engine) -> None:
    """It is the one that the server gave up at, not one that a savepoint has undone."""

    def hide_two(session: Session) -> None:
        with pytest.raises(DBAPIError), session.begin_nested():
            session.execute(text("SELECT * FROM nowhere"))
        hide_failure(session)
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1"))

    left = habitat.run(Writes(hide_two))

    assert isinstance(left, PendingRollbackError)
    assert "SQLSTATE 22012" in str(left)


def test_connection_that_is_lost_after_a_failure_undone(
    habitat: Habitat, observer: Engine
) -> None:
    """What COMMIT would have raised is what leaves."""

    def undo_and_lose(session: Session) -> None:
        with pytest.raises(DBAPIError), session.begin_nested():
            divide_by_zero(session)
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        with observer.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))

    left = habitat.run(Writes(undo_and_lose))

    assert isinstance(left, DBAPIError)
    assert left.connection_invalidated


def test_exception_after_a_hidden_failure_leaves_as_it_is(
    habitat: Habitat, observer: Engine
) -> None:
    """Nothing is added to an exception where the server has given up before."""
    error = LookupError("the cause")

    def hide_and_fail(session: Session) -> BaseException:
        hide_failure(session)
        return error

    hide = Writes(hide_and_fail)

    assert habitat.run(hide) is error
    assert not hasattr(error, "__notes__")
    assert_nothing_left(habitat, hide.session, [])


def test_failure_that_a_savepoint_has_undone_is_no_failure(
    habitat: Habitat, observer: Engine
) -> None:
    """What failed below a savepoint and was caught around it does not matter."""

    def fail_below_savepoint(session: Session) -> None:
        with pytest.raises(DBAPIError), session.begin_nested():
            divide_by_zero(session)

    writes = Writes(fail_below_savepoint)

    assert habitat.run(writes) is None
    assert_nothing_left(habitat, writes.session, ["lost"])


def sqlstate_of(error: DBAPIError) -> str:
    return str(error.orig.sqlstate)  # type: ignore[union-attr]


def test_serialization_failure_at_commit_is_raised(
    habitat: Habitat, observer: Engine
) -> None:
    """Of two transactions that each overlook the other's row, one commits."""
    serializable = {"isolation_level": "SERIALIZABLE"}
    used: list[Session] = []

    def skew(session: Session) -> None:
        used.append(session)
        session.connection(execution_options=serializable)
        assert session.scalars(select(Note)).all() == []
        session.add(Note(text="lost"))
        session.flush()
        with session_scope(observer.execution_options(**serializable)) as rival:
            assert rival.scalars(select(Note)).all() == []
            rival.add(Note(text="rival"))

    left = habitat.run(skew)

    assert isinstance(left, DBAPIError)
    assert sqlstate_of(left) == "40001"
    assert not left.connection_invalidated
    assert_nothing_left(habitat, used[0], ["rival"])


@pytest.fixture
def two_phase(engine: Engine, observer: Engine) -> Iterator[sessionmaker[Session]]:
    """Return a sessionmaker, and see that no transaction is left prepared."""
    yield sessionmaker(engine, twophase=True)
    with observer.connect().execution_options(isolation_level="AUTOCOMMIT") as look:
        left = look.scalars(text("SELECT gid FROM pg_prepared_xacts")).all()
        for gid in left:
            look.exec_driver_sql(f"ROLLBACK PREPARED '{gid}'")
    assert left == []


def test_two_phase_transaction_is_committed(
    two_phase: sessionmaker[Session], observer: Engine
) -> None:
    """A session that prepares its transaction commits it, too."""
    with session_scope(two_phase) as session:
        session.add(Note(text="kept"))

    assert stored(observer) == ["kept"]


@pytest.mark.parametrize("prepared", [False, True])
def test_two_phase_transaction_is_rolled_back(
    two_phase: sessionmaker[Session], observer: Engine, prepared: bool
) -> None:
    """An exception rolls it back, prepared or not."""
    with pytest.raises(LookupError) as caught, session_scope(two_phase) as session:
        session.add(Note(text="lost"))
        session.flush()
        if prepared:
            session.prepare()
        raise LookupError

    assert not hasattr(caught.value, "__notes__")
    assert stored(observer) == []


def test_two_phase_transaction_that_cannot_be_prepared(
    two_phase: sessionmaker[Session], engine: Engine, observer: Engine
) -> None:
    """What a COMMIT would be refused for, PREPARE TRANSACTION is."""
    with pytest.raises(SQLAlchemyError) as caught, session_scope(two_phase) as session:
        session.add_all([Note(text="lost"), Reply(note_id=-1)])

    # SQLAlchemy's own error: it has psycopg roll back what was not prepared, and 2.0
    # cannot roll back at this point.
    assert "23503" in {getattr(e, "sqlstate", "") for e in contexts(caught.value)}
    assert engine.pool.checkedout() == 0
    assert stored(observer) == []


def contexts(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


def test_two_phase_transaction_with_a_failure_undone(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """Nothing is asked of a connection whose transaction is prepared."""
    with session_scope(sessionmaker(make_engine(), twophase=True)) as session:
        session.add(Note(text="kept"))
        with pytest.raises(DBAPIError), session.begin_nested():
            divide_by_zero(session)
        session.prepare()

    assert stored(observer) == ["kept"]
