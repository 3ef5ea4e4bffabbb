"""Read-only scopes in a transaction or a session of somebody else, who writes on."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from models import Note, stored
from safesession import WriteRefused, async_session_scope, session_scope
from writes import IN_TEXT

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


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


@pytest.mark.anyio
async def test_async_savepoint(async_engine: AsyncEngine, observer: Engine) -> None:
    """The same by asyncio."""
    async with async_session_scope(async_engine) as session:
        with pytest.raises(WriteRefused):
            async with async_session_scope(session, read_only=True):
                session.add(Note(text="refused"))
                await session.flush()
        session.add(Note(text="after"))

    assert stored(observer) == ["after"]


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
