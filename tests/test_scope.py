"""What a scope opens a session on, and how it may be used."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlmodel
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.orm import Session, sessionmaker

from contract import in_transaction
from models import Base, Note, Reply, stored
from safesession import EngineNotConfigured, ScopeMisuse, session_scope

pytestmark = pytest.mark.on("sqlite", "postgresql", "mariadb")


class OwnSession(Session):
    pass


@pytest.mark.parametrize(
    "bind",
    [
        lambda engine: engine,
        sessionmaker,
        lambda engine: lambda: engine,
        lambda engine: lambda: sessionmaker(engine),
    ],
    ids=["engine", "sessionmaker", "returns engine", "returns sessionmaker"],
)
def test_bind(engine: Engine, bind: Callable[[Engine], Any]) -> None:
    """An engine, a sessionmaker, and a callable that returns either, will do."""
    with session_scope(bind(engine)) as session:
        session.add(Note(text="kept"))
        assert type(session).__mro__[-3:] == Session.__mro__[-3:]

    assert stored(engine) == ["kept"]
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        session.execute(text("SELECT 1"))


def test_connection_is_used_and_left_open(engine: Engine) -> None:
    """A connection stays its owner's; a transaction begun on it does too."""
    with engine.connect() as connection:
        with session_scope(connection) as session:
            session.add(Note(text="kept"))
        assert not connection.closed
        assert not connection.in_transaction()
        with connection.begin() as transaction:
            with session_scope(connection) as session:
                session.add(Note(text="given up by the owner"))
            transaction.rollback()

    assert stored(engine) == ["kept"]


def test_savepoint_of_the_session_s_own_is_rolled_back_in_the_owner_s_transaction(
    engine: Engine,
) -> None:
    """A session that joins by a savepoint leaves the owner's work alone."""
    maker = sessionmaker(join_transaction_mode="create_savepoint")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO note (text) VALUES ('owner')"))
        maker.configure(bind=connection)
        with pytest.raises(LookupError), session_scope(maker) as session:
            session.add(Note(text="inner"))
            session.flush()
            raise LookupError

    assert stored(engine) == ["owner"]


def test_failed_commit_beside_a_joined_connection_is_rolled_back(
    engine: Engine, tmp_path: Path
) -> None:
    """Of two databases one is its owner's to end; the other is not left half way."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    Base.metadata.create_all(other)
    with other.begin() as connection:
        maker = sessionmaker(
            binds={Note: connection, Reply: engine},
            join_transaction_mode="create_savepoint",
        )
        with pytest.raises(IntegrityError), session_scope(maker) as session:
            assert session.scalars(select(Note)).all() == []
            session.add(Reply(note_id=-1))
    other.dispose()

    with engine.connect() as connection:
        assert not in_transaction(connection.connection.driver_connection)


def test_callable_is_called_once_for_each_scope_on_entering(engine: Engine) -> None:
    """A callable is asked when the block begins, and not before."""
    asked: list[str] = []

    def engine_of_tenant() -> Engine:
        asked.append("asked")
        return engine

    scope = session_scope(engine_of_tenant)
    assert asked == []
    with scope:
        assert asked == ["asked"]
    assert asked == ["asked"]


@pytest.mark.parametrize("class_", [OwnSession, sqlmodel.Session])
def test_class(engine: Engine, class_: type[Session]) -> None:
    """`class_` is the session class for an engine, also one that a callable returns."""
    with session_scope(engine, class_=class_) as session:
        assert type(session) is class_
    with session_scope(lambda: engine, class_=class_) as session:
        assert type(session) is class_


def test_settings_of_a_sessionmaker_stand(engine: Engine) -> None:
    """What the sessionmaker says of `close_resets_only` and the rest is kept."""
    maker = sessionmaker(
        engine, class_=OwnSession, expire_on_commit=False, close_resets_only=True
    )

    with session_scope(maker) as session:
        assert isinstance(session, OwnSession)
        session.add(note := Note(text="kept"))

    assert note.text == "kept"
    assert session.execute(text("SELECT 1")).scalar_one() == 1
    session.close()


def test_two_phase_transaction_rolls_back_by_its_own_means(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A two-phase transaction is never sent an ordinary ROLLBACK."""
    sent: list[str] = []
    # SQLAlchemy's first connection is special: it is rolled back on its own.
    engine.connect().close()
    # SQLite has no two-phase transactions, so the driver's part is played here.
    for step in ("do_begin_twophase", "do_rollback_twophase", "do_rollback"):
        monkeypatch.setattr(
            engine.dialect, step, lambda *args, step=step, **kw: sent.append(step)
        )

    with (
        pytest.raises(LookupError) as caught,
        session_scope(sessionmaker(engine, twophase=True)) as session,
    ):
        session.connection()
        raise LookupError

    of_pool = "do_rollback"
    assert sent == ["do_begin_twophase", "do_rollback_twophase", of_pool]
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("bind", [None, lambda: None], ids=["None", "returns None"])
def test_missing_bind(bind: Callable[[], None] | None) -> None:
    """A bind that is, or returns, None raises on entering."""
    scope = session_scope(bind)
    with pytest.raises(EngineNotConfigured) as caught, scope:
        pytest.fail("entered")

    assert str(caught.value) == (
        "session_scope() has no engine to open a session on: the bind is None. "
        "Configure the engine before the scope is entered, or pass missing_ok=True "
        "to get None for a session."
    )


@pytest.mark.parametrize("bind", [None, lambda: None], ids=["None", "returns None"])
def test_missing_bind_that_is_accepted(
    bind: Callable[[], None] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """With `missing_ok` the session is None, and a warning is logged."""
    with session_scope(bind, missing_ok=True) as session:
        assert session is None

    (record,) = caplog.records
    assert record.name == "safesession"
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "session_scope() has no engine to open a session on: the bind is None. "
        "The session is None too, as missing_ok=True asks."
    )


def test_exception_leaves_a_scope_without_a_session() -> None:
    """An exception leaves a scope that has no session, as it is."""
    with pytest.raises(LookupError), session_scope(None, missing_ok=True):
        raise LookupError


def test_missing_ok_changes_nothing_where_there_is_an_engine(engine: Engine) -> None:
    """With `missing_ok` and an engine there is a session."""
    with session_scope(engine, missing_ok=True) as session:
        assert session is not None
        session.add(Note(text="kept"))
    assert stored(engine) == ["kept"]


def test_scope_is_single_use(engine: Engine) -> None:
    """A scope that was entered is not entered again, in or after its block."""
    scope = session_scope(engine)
    with scope, pytest.raises(ScopeMisuse) as inside:
        scope.__enter__()
    with pytest.raises(ScopeMisuse) as after:
        scope.__enter__()

    assert (
        str(inside.value)
        == str(after.value)
        == (
            "This session_scope() was entered before, and a scope serves one block. "
            "Call session_scope() again for each 'with' block."
        )
    )


def test_scope_is_not_left_without_being_entered(engine: Engine) -> None:
    """A scope is left once, and after it was entered."""
    scope = session_scope(engine)
    with pytest.raises(ScopeMisuse) as before:
        scope.__exit__(None, None, None)
    with scope:
        pass
    with pytest.raises(ScopeMisuse) as twice:
        scope.__exit__(None, None, None)

    assert (
        str(before.value)
        == str(twice.value)
        == (
            "This session_scope() was left without being entered, or left twice. "
            "Enter and leave it by a 'with' statement."
        )
    )


def test_scope_that_could_not_be_entered_is_not_left(engine: Engine) -> None:
    """Where the SAVEPOINT could not begin, the exit leaves the session alone."""
    with Session(engine) as outer:
        outer.add_all([Note(text="twice"), Note(text="twice")])
        scope = session_scope(outer)
        with pytest.raises(IntegrityError):
            scope.__enter__()
        with pytest.raises(ScopeMisuse):
            scope.__exit__(None, None, None)
        outer.rollback()

    assert stored(engine) == []


def test_sessionmaker_is_asked_for_its_settings_on_entering(engine: Engine) -> None:
    """What configure() says after the scope was made counts."""
    maker = sessionmaker(engine)
    scope = session_scope(maker)
    maker.configure(close_resets_only=True)

    with scope as session:
        pass

    assert session.execute(text("SELECT 1")).scalar_one() == 1
    session.close()


def test_scope_keeps_no_session_alive(engine: Engine) -> None:
    """A scope that was left holds on to nothing."""
    scope = session_scope(engine)
    with scope:
        pass
    assert scope._session is None


STUCK = (
    "safesession: invalidate failed, so the connection may not be back in the pool: "
    "OSError: stuck"
)


class Stubborn(Session):
    """A session that fails when it has invalidated its connection."""

    def invalidate(self) -> None:
        super().invalidate()
        raise OSError("stuck")


class Unclosable(Stubborn):
    """One that fails when it has closed, too."""

    def close(self) -> None:
        super().close()
        raise OSError("open")


def test_invalidation_that_fails_after_the_rollback_is_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the connection may be lost to the pool, the note and the log say so."""

    def fail(*args: object) -> None:
        raise OSError("torn")

    with (
        pytest.raises(LookupError) as caught,
        session_scope(engine, class_=Stubborn) as session,
    ):
        session.add(Note(text="lost"))
        session.flush()
        monkeypatch.setattr(engine.dialect, "do_rollback", fail)
        raise LookupError

    torn, stuck = caught.value.__notes__
    assert torn == (
        "safesession: rollback failed, so the connection was invalidated: OSError: torn"
    )
    assert stuck == STUCK
    assert [message.splitlines()[0] for message in caplog.messages] == [torn, stuck]


def test_invalidation_that_fails_after_the_close_is_told(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """A close that fails, and then the invalidation, are two records in the log."""
    with session_scope(engine, class_=Unclosable) as session:
        session.add(Note(text="kept"))

    assert [message.splitlines()[0] for message in caplog.messages] == [
        (
            "safesession: close failed, so the connection may not be back in the pool: "
            "OSError: open"
        ),
        STUCK,
    ]
