"""Statements that are committed by themselves, whoever has told the driver so."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from autocommit import Make, begun_by_a_listener, by_creator, by_event, each_way
from backends import wait_until_mariadb
from innodb import WAITS, change, code_of, weightier
from models import Note, stored
from retried import refusal
from safesession import InvalidArgument, async_session_scope, session_scope
from safesession.retry import async_run_in_session, run_in_session

pytestmark = [
    pytest.mark.on("sqlite", "postgresql", "mariadb"),
    pytest.mark.usefixtures("no_backoff"),
]
pytest_plugins = ("mariadb_fixtures", "retry_fixtures")

INSERT = text("INSERT INTO note (text) VALUES ('written')")


class Writes:
    """Writes a note that is of one attempt, which is refused then."""

    def __init__(self) -> None:
        self._attempts = 0

    def __call__(self, session: Session) -> None:
        self._attempts += 1
        session.add(Note(text=f"of attempt {self._attempts}"))
        session.flush()
        if self._attempts == 1:
            raise refusal()


@each_way
def test_work_is_not_run_again(make_engine: Make, observer: Engine, way: Any) -> None:
    """What its statements have committed would be done twice."""
    with pytest.raises(OperationalError):
        run_in_session(way(make_engine), Writes())

    assert stored(observer) == ["of attempt 1"]


def test_work_on_what_a_creator_returns(make_engine: Make, observer: Engine) -> None:
    """SQLAlchemy sees none of it."""
    with pytest.raises(OperationalError):
        run_in_session(by_creator(make_engine), Writes())

    assert stored(observer) == ["of attempt 1"]


@pytest.mark.anyio
@each_way
async def test_async_work_is_not_run_again(
    make_async_engine: Make, observer: Engine, way: Any
) -> None:
    """The same by asyncio."""
    writes = Writes()

    async def write(session: AsyncSession) -> None:
        await session.run_sync(writes)

    with pytest.raises(OperationalError):
        await async_run_in_session(way(make_async_engine), write)

    assert stored(observer) == ["of attempt 1"]


@each_way
def test_work_in_a_transaction_is_run_again(
    make_engine: Make, observer: Engine, way: Any
) -> None:
    """One that a statement has begun is one, as SQLite's documented set-up has it."""
    run_in_session(begun_by_a_listener(make_engine, way), Writes())

    assert stored(observer) == ["of attempt 2"]


@pytest.mark.anyio
@pytest.mark.on("sqlite", "mariadb")
async def test_async_work_in_a_transaction_is_run_again(
    make_async_engine: Make, observer: Engine
) -> None:
    """The same by asyncio, but for PostgreSQL's drivers."""
    writes = Writes()

    async def write(session: AsyncSession) -> None:
        await session.run_sync(writes)

    engine = begun_by_a_listener(make_async_engine, by_event)
    await async_run_in_session(engine, write)

    assert stored(observer) == ["of attempt 2"]


@each_way
def test_write_in_text_is_refused(make_engine: Make, way: Any) -> None:
    """Each statement is, as there is no transaction that could be."""
    engine = way(make_engine)

    with pytest.raises(DBAPIError), session_scope(engine, read_only=True) as session:
        session.scalars(select(Note)).all()
        session.execute(INSERT)
    assert stored(engine) == []
    with session_scope(engine) as session:
        session.add(Note(text="after"))

    assert stored(engine) == ["after"]


@pytest.mark.anyio
@each_way
async def test_write_in_text_is_refused_by_asyncio(
    make_async_engine: Make, observer: Engine, way: Any
) -> None:
    """The same by asyncio."""
    engine = way(make_async_engine)

    with pytest.raises(DBAPIError):
        async with async_session_scope(engine, read_only=True) as session:
            await session.execute(INSERT)
    assert stored(observer) == []
    async with async_session_scope(engine) as session:
        session.add(Note(text="after"))

    assert stored(observer) == ["after"]


@pytest.mark.on("sqlite", "postgresql")
@each_way
def test_write_in_text_in_a_transaction(
    make_engine: Make, observer: Engine, way: Any
) -> None:
    """On MariaDB it is begun too early, and the guard is alone."""
    engine = begun_by_a_listener(make_engine, way)

    with session_scope(engine, read_only=True) as session:
        with pytest.raises(DBAPIError):
            session.execute(INSERT)
        session.rollback()
        with pytest.raises(DBAPIError):
            session.execute(INSERT)
        session.commit()

    assert stored(observer) == []


@pytest.mark.anyio
@pytest.mark.on("sqlite", "postgresql")
async def test_write_in_text_in_a_transaction_by_asyncio(
    make_async_engine: Make, observer: Engine
) -> None:
    """The same by asyncio, whose drivers do not end what they have not begun."""
    engine = begun_by_a_listener(make_async_engine, by_event)

    async with async_session_scope(engine, read_only=True) as session:
        with pytest.raises(DBAPIError):
            await session.execute(INSERT)
        await session.execute(text("ROLLBACK"))

    assert stored(observer) == []


@pytest.mark.on("mariadb")
@each_way
def test_deadlock_that_was_caught(
    make_engine: Make, observer: Engine, way: Any
) -> None:
    """It has undone one statement, and what was before it is committed."""
    both = text("UPDATE note SET text = concat(text, '!') WHERE id IN (101, 102)")
    with observer.begin() as connection:
        connection.execute(text("INSERT INTO note VALUES (101, '101'), (102, '102')"))

    with session_scope(way(make_engine)) as session:
        session.add(Note(text="before"))
        session.flush()
        with weightier(observer) as rival, observer.connect() as look:
            change(rival, 102)
            waits = WAITS.format("LOCK WAIT")

            def lock_each_other_out() -> None:
                wait_until_mariadb(look, waits)
                change(rival, 101)

            with ThreadPoolExecutor() as executor:
                locked = executor.submit(lock_each_other_out)
                with pytest.raises(OperationalError) as raised:
                    session.execute(both)
            locked.result()
        session.add(Note(text="after"))

    assert code_of(raised.value) == 1213
    assert stored(observer) == ["101", "102", "after", "before"]


@pytest.mark.on("mariadb")
@each_way
def test_deadlock_that_was_caught_in_a_transaction(
    make_engine: Make,
    observer: Engine,
    deadlock: Callable[[Session], None],
    way: Any,
) -> None:
    """There it has undone what was before it, so what comes after is not kept."""
    engine = begun_by_a_listener(make_engine, way)

    with (
        pytest.raises(PendingRollbackError, match="caught in the block: sqlalchemy"),
        session_scope(engine) as session,
    ):
        session.add(Note(text="before"))
        session.flush()
        with pytest.raises(OperationalError):
            deadlock(session)
        session.add(Note(text="after"))

    assert stored(observer) == ["101", "102"]


@pytest.mark.on("sqlite")
@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "autocommit"),
    reason="sqlite3 has it from Python 3.12 on",
)
class TestAutocommitOfSQLite:
    """With ``autocommit=True`` its driver's commit() and rollback() do nothing."""

    def test_work_is_not_run_again(self, make_engine: Make, observer: Engine) -> None:
        """As with the older way to say so."""
        with pytest.raises(OperationalError):
            run_in_session(make_engine(connect_args={"autocommit": True}), Writes())

        assert stored(observer) == ["of attempt 1"]

    @pytest.mark.anyio
    async def test_async_work_is_not_run_again(
        self, make_async_engine: Make, observer: Engine
    ) -> None:
        """The same by asyncio."""
        engine = make_async_engine(connect_args={"autocommit": True})
        writes = Writes()

        async def write(session: AsyncSession) -> None:
            await session.run_sync(writes)

        with pytest.raises(OperationalError):
            await async_run_in_session(engine, write)

        assert stored(observer) == ["of attempt 1"]

    @pytest.mark.anyio
    async def test_async_savepoint(
        self, make_async_engine: Make, observer: Engine
    ) -> None:
        """The same by asyncio."""
        engine = make_async_engine(connect_args={"autocommit": True})

        with pytest.raises(InvalidArgument, match="autocommit=True"):
            async with (
                async_session_scope(engine) as session,
                async_session_scope(session),
            ):
                session.add(Note(text="within"))
                await session.flush()

        assert stored(observer) == []


class SaysAutocommit(sqlite3.Connection):
    """One that older Pythons have not."""

    autocommit = True  # type: ignore[assignment]


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("begin_first", [True, False])
def test_savepoint_where_commit_does_nothing(
    make_engine: Make, observer: Engine, begin_first: bool
) -> None:
    """It would begin a transaction that nobody ends."""
    arguments: dict[str, Any] = {"autocommit": True}
    if not hasattr(sqlite3.Connection, "autocommit"):
        arguments = {"factory": SaysAutocommit}
    engine = make_engine(connect_args=arguments)

    with pytest.raises(InvalidArgument) as raised, session_scope(engine) as session:
        if begin_first:
            session.scalars(select(Note)).all()
        with session_scope(session):
            session.add(Note(text="within"))
            session.flush()

    assert str(raised.value) == REFUSED
    assert stored(observer) == []


REFUSED = (
    "A savepoint was asked for on a connection of SQLite that has autocommit=True: "
    "there commit() and rollback() of the driver do nothing, so that what comes after "
    "it may be lost. Pass connect_args={'autocommit': False} to create_engine()."
)
