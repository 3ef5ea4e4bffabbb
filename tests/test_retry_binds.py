"""A transaction that somebody else has begun is not run again; a savepoint in it is."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from models import Base, Note, stored
from retried import Refused, refusal, work_for, write_one
from safesession import InvalidArgument
from safesession.retry import (
    async_in_session,
    async_run_in_session,
    in_session,
    run_in_session,
)

pytestmark = pytest.mark.usefixtures("no_backoff")
pytest_plugins = ("retry_fixtures",)


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
