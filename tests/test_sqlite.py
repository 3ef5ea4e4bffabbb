"""What SQLite rolls back by itself, in the midst of a block that goes on."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session, sessionmaker

from contract import Habitat
from models import Note, stored
from safesession import session_scope


def lazily(engine: Engine) -> None:
    """Leave it to the driver, which begins no transaction before the first write."""


def at_once(engine: Engine) -> None:
    """Begin as SQLAlchemy documents for all Pythons."""
    event.listen(engine, "connect", leave_it_to_us)
    event.listen(engine, "begin", lambda made: made.exec_driver_sql("BEGIN") and None)


def leave_it_to_us(driver_connection: Any, record: object) -> None:
    driver_connection.isolation_level = None


def by_the_driver(engine: Engine) -> None:
    """Begin as Python 3.12 does it, when it is told to."""
    event.listen(engine, "connect", have_it_begin)


def have_it_begin(driver_connection: Any, record: object) -> None:
    driver_connection.autocommit = False


BEGINS = [lazily, at_once]
# aiosqlite has no such attribute.
SYNC_BEGINS = [*BEGINS, by_the_driver] if sys.version_info >= (3, 12) else BEGINS
each_begin = pytest.mark.parametrize("begin", SYNC_BEGINS)

OR_ROLLBACK = "INSERT OR ROLLBACK INTO note VALUES (1, 'again')"


def write(session: Session) -> None:
    session.add(Note(id=1, text="lost"))
    session.flush()


def have_all_rolled_back(session: Session) -> None:
    with pytest.raises(IntegrityError):
        session.execute(text(OR_ROLLBACK))


def prepare(habitat: Habitat, begin: Callable[[Engine], None]) -> None:
    begin(habitat.engine)

    def close_connection(session: Session) -> None:
        session.connection()
        session.invalidate()

    # There is one already, which nobody has listened to.
    assert habitat.run(close_connection) is None


@pytest.mark.parametrize("begin", BEGINS)
def test_rollback_by_a_statement_that_was_caught(
    habitat: Habitat, observer: Engine, begin: Callable[[Engine], None]
) -> None:
    """What was done before it is undone, so what is done after it is not committed."""
    prepare(habitat, begin)

    def hide(session: Session) -> None:
        write(session)
        have_all_rolled_back(session)
        session.add(Note(text="half"))
        session.flush()
        # Not before the end either.
        assert stored(observer) == []

    left = habitat.run(hide)

    assert stored(observer) == []
    assert isinstance(left, PendingRollbackError)
    assert str(left) == (
        "The database has given this transaction up, as a statement in it has failed, "
        "and has undone all that was before the failure. The failure was caught in the "
        "block: sqlalchemy.exc.IntegrityError (sqlite3.IntegrityError). Let it leave "
        "the block."
    )
    assert habitat.engine.pool.checkedout() == 0
    assert habitat.run(write) is None
    assert stored(observer) == ["lost"]


@each_begin
def test_rollback_by_a_trigger(engine: Engine, begin: Callable[[Engine], None]) -> None:
    """It is seen by what the driver says, not by the statement."""
    begin(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE INSERT ON note WHEN NEW.text = 'too much' "
            "BEGIN SELECT RAISE(ROLLBACK, 'the table is full'); END"
        )

    with pytest.raises(PendingRollbackError), session_scope(engine) as session:
        write(session)
        with pytest.raises(IntegrityError):
            session.execute(text("INSERT INTO note (text) VALUES ('too much')"))
        session.add(Note(text="half"))

    assert stored(engine) == []


def test_rollback_by_the_first_statement(engine: Engine) -> None:
    """Where nothing was begun before, nothing is lost but what has failed."""
    with session_scope(engine) as session:
        write(session)
    with session_scope(engine) as session:
        have_all_rolled_back(session)
        session.add(Note(text="kept"))

    assert stored(engine) == ["kept", "lost"]


@each_begin
@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM nowhere", "INSERT INTO note VALUES (1, 'again')"],
)
def test_failure_that_rolls_nothing_back(
    engine: Engine, begin: Callable[[Engine], None], statement: str
) -> None:
    """It is none of the transaction, wherever it comes."""
    begin(engine)
    with session_scope(engine) as session:
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT * FROM nowhere"))
        write(session)
        with pytest.raises(DBAPIError):
            session.execute(text(statement))
        session.add(Note(text="kept"))

    assert stored(engine) == ["kept", "lost"]


def test_rollback_by_a_statement_in_autocommit(
    make_engine: Callable[..., Engine],
) -> None:
    """There is no transaction that could be lost."""
    engine = make_engine(isolation_level="AUTOCOMMIT")

    with session_scope(engine) as session:
        write(session)
        have_all_rolled_back(session)
        session.add(Note(text="kept"))

    assert stored(engine) == ["kept", "lost"]


@each_begin
def test_rollback_that_the_block_follows_by_one_of_its_own(
    engine: Engine, begin: Callable[[Engine], None]
) -> None:
    """What comes after is a transaction of its own, on the same connection, too."""
    begin(engine)
    with engine.connect() as connection, session_scope(connection) as session:
        write(session)
        have_all_rolled_back(session)
        session.rollback()
        session.add(Note(text="anew"))

    assert stored(engine) == ["anew"]


def test_connection_on_which_nothing_can_be_begun_again(engine: Engine) -> None:
    """It is given up, so that what comes after cannot be committed by itself."""
    at_once(engine)

    with pytest.raises(PendingRollbackError), session_scope(engine) as session:
        write(session)
        event.listen(engine, "before_cursor_execute", refuse_to_begin)
        have_all_rolled_back(session)

    event.remove(engine, "before_cursor_execute", refuse_to_begin)
    assert stored(engine) == []


def refuse_to_begin(
    connection: object, cursor: object, statement: str, *others: object
) -> None:
    if statement == "BEGIN":
        raise LookupError("no")


def test_connection_that_is_closed_beneath_it(engine: Engine) -> None:
    """What the driver raises is what leaves."""
    with pytest.raises(DBAPIError, match="closed"), session_scope(engine) as session:
        write(session)
        result = session.execute(text("SELECT * FROM note"))
        driver_connection: Any = session.connection().connection.driver_connection
        driver_connection.close()
        result.all()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has no such argument")
def test_pragmas_in_a_transaction_of_the_driver(observer: Engine) -> None:
    """Who has it begin each has to say them elsewhere."""
    engine = create_engine(observer.url, connect_args={"autocommit": False})
    with engine.connect() as connection:
        with pytest.raises(DBAPIError, match="wal mode from within a transaction"):
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("PRAGMA foreign_keys=ON")
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 0
    engine.dispose()


def test_rollback_on_one_of_several_engines(make_engine: Callable[..., Engine]) -> None:
    """An engine that only `binds` names is looked at as any other."""
    engine = make_engine()
    maker = sessionmaker(binds={Note: engine})

    with (
        pytest.raises(PendingRollbackError, match="has undone all that was before"),
        session_scope(maker) as session,
    ):
        write(session)
        with pytest.raises(IntegrityError):
            session.execute(text(OR_ROLLBACK), bind_arguments={"mapper": Note})

    assert stored(engine) == []


def in_upper_case() -> Any:
    found = select(Note.id).cte("found")
    return (
        update(Note)
        .where(Note.id.in_(select(found.c.id)))
        .values(text=func.upper(Note.text))
    )


def addition() -> Any:
    found = select(Note.text).cte("found")
    return insert(Note).from_select(["text"], select(found.c.text + "!"))


def removal() -> Any:
    found = select(Note.id).cte("found")
    return delete(Note).where(Note.id.in_(select(found.c.id)))


@pytest.mark.parametrize("statement", [addition, in_upper_case, removal])
@pytest.mark.parametrize("isolation_level", [None, "AUTOCOMMIT"])
def test_write_that_begins_with_an_expression(
    habitat: Habitat,
    observer: Engine,
    statement: Callable[[], Any],
    isolation_level: str | None,
) -> None:
    """The driver begins nothing for it, and it is undone with the rest all the same.

    But not where each statement is to be committed by itself.
    """
    assert habitat.run(lambda session: session.add(Note(text="kept"))) is None
    error = LookupError("of the block")
    options = {} if isolation_level is None else {"isolation_level": isolation_level}

    def write_and_fail(session: Session) -> BaseException:
        session.connection(execution_options=options)
        session.execute(statement())
        return error

    assert habitat.run(write_and_fail) is error
    assert (stored(observer) == ["kept"]) is (isolation_level is None)


def test_write_that_begins_with_an_expression_is_committed(
    habitat: Habitat, observer: Engine
) -> None:
    """It is, and by the scope."""
    assert habitat.run(lambda session: session.add(Note(text="kept"))) is None

    def write(session: Session) -> None:
        session.execute(in_upper_case())

    assert habitat.run(write) is None
    assert stored(observer) == ["KEPT"]


@pytest.mark.parametrize("kept", ["CREATE TABLE kept (id INTEGER)", "WITH"])
def test_statement_that_the_driver_takes_for_no_write(
    engine: Engine, observer: Engine, kept: str
) -> None:
    """It is committed by itself, where nothing was written before."""
    if kept == "WITH":
        kept = "WITH one AS (SELECT 'kept') INSERT INTO note (text) SELECT * FROM one"
    found: list[bool] = []

    for first in ("SELECT 1", "INSERT INTO note (text) VALUES ('first')"):
        with pytest.raises(LookupError), session_scope(engine) as session:
            session.execute(text(first))
            session.execute(text(kept))
            raise LookupError
        found.append(bool(stored(observer)) or inspect(observer).has_table("kept"))
        with observer.begin() as connection:
            connection.execute(text("DELETE FROM note"))
            connection.execute(text("DROP TABLE IF EXISTS kept"))

    assert found == [True, False]
