"""What a real database refuses, at a statement or at COMMIT, and what is run again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, func, select, update
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from models import Note, stored
from safesession import session_scope
from safesession._begun import begun_by
from safesession.retry import run_in_session

pytestmark = pytest.mark.usefixtures("no_backoff")
pytest_plugins = ("retry_fixtures",)


@pytest.mark.on("postgresql")
def test_conflict_that_commit_tells(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """Write skew under SERIALIZABLE: refused at COMMIT, and right the second time."""
    engine = make_engine(isolation_level="SERIALIZABLE", pool_size=2)
    with session_scope(engine) as session:
        session.add_all([Note(text="a"), Note(text="b")])
    found: list[list[str]] = []

    def read_one_and_change_the_other(session: Session) -> None:
        found.append(list(session.scalars(select(Note.text).order_by(Note.id))))
        if len(found) == 1:
            with session_scope(engine) as rival:
                rival.scalars(select(Note)).all()
                rival.execute(update(Note).where(Note.id == 1).values(text="rival's"))
        session.execute(update(Note).where(Note.id == 2).values(text="ours"))

    run_in_session(engine, read_one_and_change_the_other)

    assert found == [["a", "b"], ["rival's", "b"]]
    assert stored(observer) == ["ours", "rival's"]


@pytest.mark.on("sqlite")
def test_lock_of_sqlite(make_engine: Callable[..., Engine], observer: Engine) -> None:
    """SQLite says that it is busy, until the rival has ended."""
    engine = make_engine(connect_args={"timeout": 0})
    attempts: list[int] = []
    with Session(make_engine()) as rival:
        rival.add(Note(text="rival's"))
        rival.flush()

        def write(session: Session) -> None:
            attempts.append(1)
            if len(attempts) == 3:
                rival.commit()
            session.add(Note(text="ours"))

        run_in_session(engine, write)

    assert len(attempts) == 3
    assert stored(observer) == ["ours", "rival's"]


class OtherBase(DeclarativeBase):
    pass


class Elsewhere(OtherBase):
    """A row of another database."""

    __tablename__ = "elsewhere"
    id: Mapped[int] = mapped_column(primary_key=True)


@contextmanager
def commits_refused(engine: Engine) -> Iterator[Callable[[], None]]:
    """Have SQLite be busy at COMMIT until it is called, as another reads."""
    with engine.connect() as reader:
        reader.exec_driver_sql("INSERT INTO note (text) VALUES ('read')")
        reader.commit()
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM note").fetchone()
        yield reader.rollback


@pytest.mark.on("sqlite")
def test_commit_on_one_of_two_connections(
    make_engine: Callable[..., Engine], observer: Engine, tmp_path: Path
) -> None:
    """What one has committed stays so, where the other's COMMIT is refused."""
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    OtherBase.metadata.create_all(other)
    hurried = make_engine(connect_args={"timeout": 0})
    calls: list[int] = []

    class Both(Session):
        pass

    def write_both(session: Session) -> None:
        calls.append(1)
        session.add_all([Note(text="refused"), Elsewhere()])

    # As SQLAlchemy does, but in an order that is not by chance.
    @event.listens_for(Both, "before_commit")
    def commit_each(session: Session) -> None:
        session.flush()
        for connection in sorted(
            begun_by(session), key=lambda connection: connection.engine is not other
        ):
            connection.commit()

    maker = sessionmaker(class_=Both, binds={Note: hurried, Elsewhere: other})
    with commits_refused(make_engine()), pytest.raises(OperationalError):
        run_in_session(maker, write_both, attempts=3)

    with other.connect() as connection:
        assert connection.scalar(select(func.count(Elsewhere.id))) == 1
    other.dispose()
    assert len(calls) == 1
    assert stored(observer) == ["read"]


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("commits", ["scope", "session", "connection"])
def test_refused_commit_is_no_commit(
    make_engine: Callable[..., Engine], observer: Engine, commits: str
) -> None:
    """By whatever it was asked for: nothing of it is done."""
    engine = make_engine(connect_args={"timeout": 0})
    calls: list[int] = []

    def write(session: Session) -> None:
        calls.append(1)
        if len(calls) == 3:
            let_commit()
        session.add(Note(text="around"))
        session.flush()
        # The connection is begun once more, for the savepoint.
        with session.begin_nested():
            session.add(Note(text="nested"))
        if commits == "session":
            session.commit()
        if commits == "connection":
            session.connection().commit()

    with commits_refused(make_engine()) as let_commit:
        if commits == "connection":
            # The session finds out that its transaction is gone.
            with suppress(InvalidRequestError):
                run_in_session(engine, write)
        else:
            run_in_session(engine, write)

    assert len(calls) == 3
    assert stored(observer) == ["around", "nested", "read"]


@pytest.mark.on("sqlite")
def test_commit_that_succeeds_after_one_was_refused(
    make_engine: Callable[..., Engine], observer: Engine
) -> None:
    """It stands, though the error of the first is what leaves."""
    engine = make_engine(connect_args={"timeout": 0})
    calls: list[int] = []

    def write(session: Session) -> None:
        calls.append(1)
        session.add(Note(text="refused"))
        with pytest.raises(OperationalError) as refused:
            session.commit()
        session.rollback()
        let_commit()
        session.add(Note(text="committed"))
        session.commit()
        raise refused.value

    with commits_refused(make_engine()) as let_commit, pytest.raises(OperationalError):
        run_in_session(engine, write)

    assert len(calls) == 1
    assert stored(observer) == ["committed", "read"]


@pytest.mark.on("sqlite")
@pytest.mark.parametrize("succeeds", [True, False])
def test_commit_on_an_exception_that_is_refused(
    make_engine: Callable[..., Engine], observer: Engine, succeeds: bool
) -> None:
    """The audit row is written by another attempt, before the exception leaves."""
    engine = make_engine(connect_args={"timeout": 0})
    calls: list[LookupError] = []

    def audit(session: Session) -> None:
        calls.append(LookupError())
        if succeeds and len(calls) == 3:
            let_commit()
        session.add(Note(text="audit"))
        raise calls[-1]

    with (
        commits_refused(make_engine()) as let_commit,
        pytest.raises(LookupError) as raised,
    ):
        run_in_session(engine, audit, commit_on=LookupError, attempts=4)

    notes = raised.value.__notes__
    busy = "sqlalchemy.exc.OperationalError (sqlite3.OperationalError: database is "
    assert raised.value is calls[-1]
    assert len(calls) == 3 + (not succeeds)
    assert len(notes) == len(calls) - succeeds
    assert notes[-1] == (
        f"safesession: attempt {len(calls) - 1} of the function audit() failed: "
        f"{busy}locked)"
    )
    assert stored(observer) == ["audit"] * succeeds + ["read"]
