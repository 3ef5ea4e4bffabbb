"""How a savepoint's transaction begins, on whichever engine or connection it is."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session, sessionmaker

from contract import in_transaction
from models import Note, stored
from safesession import session_scope

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


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
