"""Sessions that cannot write: what they refuse, and how their blocks end."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from contract import Habitat, assert_nothing_left
from models import Note, Reply, stored
from safesession import (
    InvalidArgument,
    WriteRefused,
    async_session_scope,
    session_scope,
)
from safesession.fastapi import async_session_dependency, session_dependency
from writes import GUARDED, IN_TEXT

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


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


def test_hook_that_reads_as_a_write_is_refused(seeded: Habitat) -> None:
    """A `before_flush` of the service may use the database at the end of the block."""
    found: list[str] = []

    def read(session: Session, *_: Any) -> None:
        found.extend(session.scalars(select(Note.text)))

    def body(session: Session) -> None:
        event.listen(session, "before_flush", read, insert=True)
        session.add(Note(text="refused"))

    assert isinstance(seeded.run(body, read_only=True), WriteRefused)

    assert found == ["kept"]


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
