"""Sessions that cannot write, and what they leave for those that can."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import (
    Connection,
    Engine,
    TwoPhaseTransaction,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import PoolResetState
from sqlalchemy.schema import DropTable

from contract import Habitat, assert_nothing_left
from models import Note, Reply, stored
from safesession import (
    InvalidArgument,
    WriteRefused,
    async_session_scope,
    session_scope,
)
from safesession._read_only import _UNDOING, _allow_at_reset
from safesession.fastapi import async_session_dependency, session_dependency
from test_mariadb import end_connection, id_of

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")

Write = Callable[[Session], object]


def flush(session: Session) -> None:
    session.add(Note(text="written"))
    session.flush()


def flush_by_a_query(session: Session) -> None:
    session.add(Note(text="written"))
    session.scalars(select(Note))


def forget_to_flush(session: Session) -> None:
    session.add(Note(text="written"))


def change(session: Session) -> None:
    session.scalars(select(Note)).one().text = "written"


def remove(session: Session) -> None:
    session.delete(session.scalars(select(Note)).one())


def execute(statement: Any) -> Write:
    return lambda session: session.execute(statement)


GUARDED: dict[str, tuple[Write, str]] = {
    "flush": (flush, "a flush of Note"),
    "autoflush": (flush_by_a_query, "a flush of Note"),
    "at the end": (forget_to_flush, "a flush of Note"),
    "change": (change, "a flush of Note"),
    "remove": (remove, "a flush of Note"),
    "insert": (execute(insert(Note).values(text="written")), "INSERT"),
    "update": (execute(update(Note).values(text="written")), "UPDATE"),
    "delete": (execute(delete(Note)), "DELETE"),
    "on the connection": (
        lambda session: session.connection().execute(delete(Note)),
        "DELETE",
    ),
    "in bulk": (
        lambda session: session.bulk_save_objects([Note(text="written")]),
        "INSERT",
    ),
    "definition": (execute(DropTable(Reply.__table__)), "DROP TABLE"),  # type: ignore[arg-type]
}
IN_TEXT = {
    "insert": "INSERT INTO note (text) VALUES ('written')",
    "update": "UPDATE note SET text = 'written'",
    "delete": "DELETE FROM note",
    "create": "CREATE TABLE written (id INTEGER)",
}


@pytest.fixture
def seeded(habitat: Habitat) -> Habitat:
    """Have a row to write to, and no connection that was made for it."""
    assert habitat.run(lambda session: session.add(Note(text="kept"))) is None
    return habitat


def test_reads_are_as_ever_and_end_in_a_rollback(
    seeded: Habitat, observer: Engine
) -> None:
    """A read-only block reads, and its connection goes back as it was."""
    ends: list[str] = []
    event.listen(seeded.engine, "commit", lambda *args: ends.append("commit"))
    event.listen(seeded.engine, "rollback", lambda *args: ends.append("rollback"))
    sessions: list[Session] = []

    def read(session: Session) -> None:
        sessions.append(session)
        assert session.scalars(select(Note.text)).all() == ["kept"]

    assert seeded.run(read, read_only=True) is None

    assert ends == ["rollback"]
    assert_nothing_left(seeded, sessions[0], ["kept"])


@pytest.mark.parametrize("way", GUARDED)
def test_write_that_sqlalchemy_sees_is_refused(seeded: Habitat, way: str) -> None:
    """A write is refused before it is sent, with what to do about it."""
    write, what = GUARDED[way]
    sessions: list[Session] = []

    def body(session: Session) -> None:
        sessions.append(session)
        write(session)

    left = seeded.run(body, read_only=True)

    assert isinstance(left, WriteRefused)
    assert str(left) == (
        f"This session is read_only, and was asked for a write: {what}. Do it in a "
        "scope without read_only=True."
    )
    assert not hasattr(left, "__notes__")
    assert_nothing_left(seeded, sessions[0], ["kept"])


@pytest.mark.parametrize("statement", IN_TEXT.values(), ids=IN_TEXT)
def test_write_in_text_is_refused_by_the_database(
    seeded: Habitat, statement: str
) -> None:
    """What only the database understands, it refuses."""
    sessions: list[Session] = []

    def body(session: Session) -> None:
        sessions.append(session)
        session.execute(text(statement))

    left = seeded.run(body, read_only=True)

    assert isinstance(left, DBAPIError)
    assert_nothing_left(seeded, sessions[0], ["kept"])


def test_definition_that_was_refused_opens_no_way(seeded: Habitat) -> None:
    """MariaDB would commit before it, and begin another transaction after."""
    sessions: list[Session] = []

    def write(session: Session) -> None:
        sessions.append(session)
        for statement in (IN_TEXT["create"], IN_TEXT["insert"]):
            with pytest.raises(DBAPIError):
                session.execute(text(statement))
            session.rollback()

    assert seeded.run(write, read_only=True) is None
    assert_nothing_left(seeded, sessions[0], ["kept"])


def test_attribute_that_is_set_to_what_it_is_is_no_write(seeded: Habitat) -> None:
    """A flush that would send nothing is let through."""

    def touch(session: Session) -> None:
        note = session.scalars(select(Note)).one()
        note.text = note.text[:]
        session.flush()

    assert seeded.run(touch, read_only=True) is None


def test_flush_of_several_classes(seeded: Habitat) -> None:
    """It is told what was to be written."""

    def write(session: Session) -> None:
        session.add_all([Note(text="written"), Reply(note_id=1), Reply(note_id=1)])
        session.flush()

    left = seeded.run(write, read_only=True)

    assert "a flush of Note, Reply. Do it" in str(left)


def test_connection_that_the_block_invalidates(
    seeded: Habitat, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes to nobody, and there is nothing to tell of it."""

    def invalidate(session: Session) -> None:
        session.connection().invalidate()

    assert seeded.run(invalidate, read_only=True) is None
    assert not [each for each in caplog.records if each.name == "safesession"]


def test_exception_leaves_as_it_was_raised(seeded: Habitat) -> None:
    """An exception is not hidden by what was not flushed."""
    error = LookupError("the cause")
    sessions: list[Session] = []

    def fail(session: Session) -> BaseException:
        sessions.append(session)
        session.scalars(select(Note)).one().text = "written"
        return error

    assert seeded.run(fail, read_only=True) is error
    assert not hasattr(error, "__notes__")
    assert_nothing_left(seeded, sessions[0], ["kept"])


@pytest.mark.parametrize("end", [Session.commit, Session.rollback])
def test_transaction_that_the_block_ends_itself(
    seeded: Habitat, end: Callable[[Session], None]
) -> None:
    """The next one in the same block is read-only, too; and others can write."""
    engine, texts = seeded.engine, list[str]()

    def end_and_write(session: Session) -> None:
        session.scalars(select(Note)).all()
        end(session)
        with Session(engine) as other:
            other.add(Note(text="of another"))
            other.commit()
        texts.extend(session.scalars(select(Note.text).order_by(Note.text)))
        session.execute(text(IN_TEXT["insert"]))

    left = seeded.run(end_and_write, read_only=True)

    assert isinstance(left, DBAPIError)
    assert texts == ["kept", "of another"]


@pytest.mark.parametrize("end", ["commit", "rollback", "invalidate"])
def test_transaction_that_the_block_ends_on_the_connection(
    seeded: Habitat, observer: Engine, end: str
) -> None:
    """The session is told of nothing, and what comes after is read-only too."""
    ended: list[str] = []

    def end_and_write(session: Session) -> None:
        connection = session.connection()
        getattr(connection, end)()
        connection.rollback()
        with suppress(DBAPIError):
            connection.execute(text(IN_TEXT["insert"]))
        connection.commit()
        ended.append(end)

    seeded.run(end_and_write, read_only=True)

    assert ended == [end]
    assert stored(observer) == ["kept"]


def test_session_that_the_block_closes_itself(seeded: Habitat) -> None:
    """A connection that goes back before the end goes back as it was."""
    sessions: list[Session] = []

    def close(session: Session) -> None:
        sessions.append(session)
        session.scalars(select(Note)).all()
        session.close()

    assert seeded.run(close, read_only=True) is None
    assert_nothing_left(seeded, sessions[0], ["kept"])


@pytest.mark.on("postgresql")
def test_transaction_that_text_ends(engine: Engine, observer: Engine) -> None:
    """What is for the transaction alone does not keep who means to write from it."""
    with session_scope(engine, read_only=True) as session:
        for statement in ("COMMIT", IN_TEXT["insert"], "COMMIT"):
            session.execute(text(statement))

    assert stored(observer) == ["written"]


@pytest.mark.on("sqlite")
def test_pragma_that_sqlite_does_not_take_for_a_write(
    engine: Engine, observer: Engine
) -> None:
    """It is kept in the file all the same."""
    with session_scope(engine, read_only=True) as session:
        session.execute(text("PRAGMA journal_mode=WAL"))

    with observer.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"


def test_connection_of_somebody_else_is_left_as_it_was(
    engine: Engine, observer: Engine
) -> None:
    """Its owner reads and writes on, after the scope has rolled back."""
    with engine.connect() as connection:
        with session_scope(connection, read_only=True) as session:
            session.scalars(select(Note)).all()
            with pytest.raises(DBAPIError):
                session.execute(text(IN_TEXT["insert"]))
        connection.execute(insert(Note).values(text="of the owner"))
        connection.commit()

    assert stored(observer) == ["of the owner"]


def test_connection_of_somebody_else_that_is_used_again(
    engine: Engine, observer: Engine
) -> None:
    """Each transaction on it is read-only, and the owner's after them is not."""
    with engine.connect() as connection:
        with session_scope(connection, read_only=True) as session:
            for _ in range(2):
                session.scalars(select(Note)).all()
                with pytest.raises(DBAPIError):
                    session.execute(text(IN_TEXT["insert"]))
                session.rollback()
        connection.execute(text("INSERT INTO note (text) VALUES ('of the owner')"))
        connection.commit()
        connection.execute(insert(Note).values(text="of the owner, too"))
        connection.commit()

    assert stored(observer) == ["of the owner", "of the owner, too"]


@pytest.mark.on("sqlite")
def test_savepoint_of_somebody_else(engine: Engine, observer: Engine) -> None:
    """The session's own rollback leaves it to the end to let the owner write."""
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        with connection.begin_nested():
            with session_scope(connection, read_only=True) as session:
                session.scalars(select(Note)).all()
                session.rollback()
            connection.execute(insert(Note).values(text="of the owner"))
        connection.commit()

    assert stored(observer) == ["of the owner"]


@pytest.mark.anyio
@pytest.mark.on("sqlite")
async def test_savepoint_of_somebody_else_by_asyncio(
    async_engine: AsyncEngine, observer: Engine
) -> None:
    """The same, though letting it write is all that the exit has to wait for."""
    async with async_engine.connect() as connection:
        await connection.exec_driver_sql("BEGIN")
        async with connection.begin_nested():
            async with async_session_scope(connection, read_only=True) as session:
                (await session.scalars(select(Note))).all()
                await session.rollback()
            await connection.execute(insert(Note).values(text="of the owner"))
        await connection.commit()

    assert stored(observer) == ["of the owner"]


def test_savepoint(engine: Engine, observer: Engine) -> None:
    """Within it nothing can be written; around it, all can."""
    with session_scope(engine) as session:
        session.add(Note(text="before"))
        with session_scope(session, read_only=True):
            assert session.scalars(select(Note.text)).all() == ["before"]
        with (
            pytest.raises(WriteRefused),
            session_scope(session, read_only=True),
        ):
            session.add(Note(text="refused"))
            session.flush()
        session.add(Note(text="after"))

    assert stored(observer) == ["after", "before"]


@pytest.mark.on("sqlite", "postgresql")
def test_write_in_text_in_a_savepoint(engine: Engine, observer: Engine) -> None:
    """MariaDB cannot be told to refuse it when the transaction has begun."""
    with session_scope(engine) as session:
        session.add(Note(text="before"))
        with pytest.raises(DBAPIError), session_scope(session, read_only=True):
            session.execute(text(IN_TEXT["insert"]))
        session.add(Note(text="after"))

    assert stored(observer) == ["after", "before"]


def test_savepoint_before_the_first_statement(engine: Engine, observer: Engine) -> None:
    """What the savepoint begins around itself is the outer scope's."""
    with session_scope(engine) as session:
        with session_scope(session, read_only=True):
            assert session.scalars(select(Note.text)).all() == []
        session.add(Note(text="after"))

    assert stored(observer) == ["after"]


def test_savepoint_in_a_read_only_session(engine: Engine) -> None:
    """It is read-only too, and so is what comes after it."""
    for options in ({}, {"read_only": True}):
        with session_scope(engine, read_only=True) as session:
            with pytest.raises(WriteRefused), session_scope(session, **options):
                session.add(Note(text="within"))
            with pytest.raises(DBAPIError):
                session.execute(text(IN_TEXT["insert"]))


@pytest.mark.on("postgresql", "mariadb")
@pytest.mark.parametrize("end", ["rollback", "close", "commit", None])
def test_two_phase_session(engine: Engine, observer: Engine, end: str | None) -> None:
    """It commits nothing, so it needs no two phases, which would begin too early."""
    maker = sessionmaker(engine, twophase=True, close_resets_only=True)

    with session_scope(maker, read_only=True) as session:
        assert session.scalars(select(Note)).all() == []
        with pytest.raises(DBAPIError):
            session.execute(text(IN_TEXT["insert"]))
        session.rollback()
        session.scalars(select(Note)).all()
        if end is not None:
            getattr(session, end)()

    assert stored(observer) == []
    # It is the user's to use again.
    session.add(Note(text="in two phases"))
    session.flush()
    assert isinstance(session.connection().get_transaction(), TwoPhaseTransaction)
    session.commit()
    assert stored(observer) == ["in two phases"]


@pytest.mark.on("mariadb")
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_connection_of_somebody_else_in_two_phases(
    make_engine: Callable[..., Engine], observer: Engine, end: str
) -> None:
    """Whatever ends it, the pool has its connection as it was."""
    engine = make_engine(pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        begun = connection.begin_twophase()
        with session_scope(connection, read_only=True) as session:
            session.scalars(select(Note)).all()
            getattr(session, end)()
        begun.close()

    with session_scope(engine) as session:
        session.add(Note(text="after"))
    assert stored(observer) == ["after"]


@pytest.mark.on("mariadb")
def test_rollback_on_a_connection_that_the_server_has_ended(
    habitat: Habitat, observer: Engine
) -> None:
    """It fails as in any session, by an error of SQLAlchemy's."""

    def lose_and_roll_back(session: Session) -> None:
        end_connection(observer, id_of(session))
        with pytest.raises(DBAPIError):
            session.rollback()
        assert session.scalars(select(Note)).all() == []

    for read_only in (False, True):
        assert habitat.run(lose_and_roll_back, read_only=read_only) is None


@pytest.mark.on("sqlite")
def test_connection_that_cannot_be_allowed_to_write_when_it_is_handed_back(
    make_engine: Callable[..., Engine],
) -> None:
    """The pool gives it to nobody."""
    engine = make_engine(pool_size=1, max_overflow=0)
    invalidated: list[object] = []
    event.listen(engine, "invalidate", lambda *args: invalidated.append(args[0]))

    with session_scope(engine, read_only=True) as session:
        session.connection().info[_UNDOING] = "NONSENSE"
        session.close()

    assert len(invalidated) == 1
    with session_scope(engine) as session:
        session.add(Note(text="after"))
    assert stored(engine) == ["after"]


@pytest.mark.on("sqlite")
def test_connection_that_its_next_user_keeps_from_writing(
    make_engine: Callable[..., Engine],
) -> None:
    """What is undone once is not undone again."""
    engine = make_engine(pool_size=1, max_overflow=0)
    for end in (Session.commit, Session.close, lambda session: None):
        with session_scope(engine, read_only=True) as session:
            session.scalars(select(Note)).all()
            end(session)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA query_only").scalar() == 1
            connection.exec_driver_sql("PRAGMA query_only = OFF")


def test_connection_that_the_garbage_collector_hands_back() -> None:
    """Nothing can be sent on one of an async engine then, and it is closed."""
    driver_connection, entry = Mock(), Mock(info={_UNDOING: "NONSENSE"})
    state = PoolResetState(
        transaction_was_reset=False, terminate_only=True, asyncio_safe=False
    )

    _allow_at_reset(driver_connection, entry, state)

    assert not driver_connection.mock_calls


def test_connection_that_the_block_detaches(engine: Engine) -> None:
    """It is no longer the pool's, and is closed."""
    with session_scope(engine, read_only=True) as session:
        session.scalars(select(Note)).all()
        session.connection().detach()
        session.close()

    with session_scope(engine) as session:
        session.add(Note(text="after"))
    assert stored(engine) == ["after"]


def test_connection_that_was_read_only_before_stays_so(
    make_engine: Callable[..., Engine],
) -> None:
    """What somebody else has forbidden is not allowed at the end."""
    engine = make_engine(pool_size=1, max_overflow=0)
    forbidding = {
        "sqlite": "PRAGMA query_only = ON",
        "postgresql": "SET default_transaction_read_only = on",
        "mariadb": "SET SESSION TRANSACTION READ ONLY",
    }[engine.dialect.name]
    event.listen(engine, "connect", lambda made, _: execute_on(made, forbidding))

    for level in ("SERIALIZABLE", "AUTOCOMMIT"):
        bind = engine.execution_options(isolation_level=level)
        with session_scope(bind, read_only=True) as session:
            session.scalars(select(Note)).all()

    with pytest.raises(DBAPIError), session_scope(engine) as session:
        session.execute(text(IN_TEXT["insert"]))


def execute_on(driver_connection: Any, statement: str) -> None:
    cursor = driver_connection.cursor()
    cursor.execute(statement)
    cursor.close()
    driver_connection.commit()


@pytest.mark.on("sqlite")
def test_connection_that_cannot_be_allowed_to_write_is_invalidated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody gets it from the pool; what it failed with is told."""
    invalidated: list[object] = []
    event.listen(engine, "invalidate", lambda *args: invalidated.append(args[0]))

    with session_scope(engine, read_only=True) as session:
        session.scalars(select(Note)).all()
        # No such statement, so it fails.
        session.connection().info[_UNDOING] = "NONSENSE"

    assert len(invalidated) == 1
    assert "rollback failed, so the connection was invalidated" in caplog.text
    with session_scope(engine) as session:
        session.add(Note(text="after"))


def test_missing_engine() -> None:
    """There is no session that could be kept from writing."""
    with session_scope(None, missing_ok=True, read_only=True) as session:
        assert session is None


@pytest.mark.parametrize(
    "call",
    [session_scope, async_session_scope, session_dependency, async_session_dependency],
)
def test_read_only_together_with_commit_on(call: Callable[..., Any]) -> None:
    """What cannot both be is refused by the call."""
    with pytest.raises(InvalidArgument) as raised:
        call(None, read_only=True, commit_on=LookupError)

    assert str(raised.value) == (
        f"{call.__name__}() got read_only=True together with commit_on, and what is "
        "read_only commits nothing. Leave one of them out."
    )


def test_other_database(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    """Where the database cannot be told to, the guard sees what SQLAlchemy sees."""
    monkeypatch.setattr(engine.dialect, "name", "another")

    def write(connection: Connection) -> None:
        connection.execute(delete(Note))

    with session_scope(sessionmaker(engine), read_only=True) as session:
        session.scalars(select(Note)).all()
        with pytest.raises(WriteRefused):
            write(session.connection())
