"""The pytest plugin's sessions commit, and nothing of it is left after the test."""

import pytest

from projects import Project

pytestmark = pytest.mark.once
pytest_plugins = ["pytester"]

CONFTEST = """\
import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

path = Path(__file__).with_name("test.db")
engine = create_engine(f"sqlite:///{path}")
async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)


loops = []


@event.listens_for(async_engine.sync_engine, "checkout")
def note_loop(*args):
    loops.append(asyncio.get_running_loop())


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


def stored():
    with engine.connect() as connection:
        return list(connection.scalars(select(Note.text).order_by(Note.text)))


@pytest.fixture(scope="session", autouse=True)
def tables():
    # Another worker of pytest-xdist may have made it meanwhile.
    with suppress(OperationalError):
        Base.metadata.create_all(engine)
    yield
    engine.dispose()


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert stored() == []


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def safesession_bind():
    return engine


@pytest.fixture
def safesession_async_bind():
    return async_engine
"""
IMPORTS = """\
import asyncio
from typing import Annotated

import httpx
import pytest
from conftest import Note, async_engine, engine, loops
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from safesession import InvalidArgument, ScopeMisuse, async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency


"""


@pytest.fixture
def project(collected: None, pytester: pytest.Pytester) -> Project:
    return Project(pytester, IMPORTS, CONFTEST)


def test_session(project: Project) -> None:
    """The session commits and rolls back as any other, and nothing is left."""
    project.run(
        """
        def test(joined_session):
            joined_session.add(Note(text="kept"))
            joined_session.commit()
            joined_session.add(Note(text="dropped"))
            joined_session.flush()
            joined_session.rollback()
            assert joined_session.scalars(select(Note.text)).all() == ["kept"]

        def test_begins_with_a_read(joined_session):
            assert joined_session.scalars(select(Note.text)).all() == []
            joined_session.add(Note(text="kept"))
            joined_session.commit()

        def test_left_uncommitted(joined_session):
            joined_session.add(Note(text="pending"))
            joined_session.flush()

        def test_failed_flush(joined_session):
            joined_session.add_all([Note(text="same"), Note(text="same")])
            with pytest.raises(IntegrityError):
                joined_session.flush()
        """
    ).assert_outcomes(passed=4)


@pytest.mark.parametrize("bind", ["joined_sessionmaker", "joined_connection"])
def test_bind(project: Project, bind: str) -> None:
    """Code that takes a bind commits and rolls back one unit of work at a time."""
    project.run(
        f"""
        def place(bind, text):
            with session_scope(bind) as session:
                session.add(Note(text=text))
                session.flush()
                if text == "bad":
                    raise ValueError(text)

        def test({bind}, joined_session):
            place({bind}, "first")
            with pytest.raises(ValueError, match="bad"):
                place({bind}, "bad")
            with pytest.raises(IntegrityError):
                place({bind}, "first")
            place({bind}, "second")
            assert joined_session.scalars(select(Note.text)).all() == [
                "first",
                "second",
            ]
        """
    ).assert_outcomes(passed=1)


def test_connection_with_a_class(project: Project) -> None:
    """Code that names a session class itself takes the connection as its bind."""
    project.run(
        """
        class Own(Session):
            pass

        def test(joined_connection):
            with session_scope(joined_connection, class_=Own) as session:
                assert isinstance(session, Own)
                session.add(Note(text="kept"))
        """
    ).assert_outcomes(passed=1)


def test_connection_refuses_to_commit(project: Project) -> None:
    """A commit of the connection itself would be for ever, and is refused."""
    project.run(
        """
        def test(joined_connection):
            joined_connection.execute(Note.__table__.insert().values(text="once"))
            with pytest.raises(ScopeMisuse, match="ends in a rollback, and commit"):
                joined_connection.commit()

        def test_savepoint(joined_connection):
            with joined_connection.begin_nested():
                joined_connection.execute(Note.__table__.insert().values(text="once"))
        """
    ).assert_outcomes(passed=2)


def test_dependency(project: Project) -> None:
    """Each request commits or rolls back its own session, in the test's transaction."""
    project.run(
        """
        get_session = session_dependency(engine)
        app = FastAPI()

        @app.post("/notes/{text}", status_code=201)
        def add(text: str, session: Annotated[Session, Depends(get_session)]) -> int:
            note = Note(text=text)
            session.add(note)
            session.flush()
            if text == "bad":
                raise HTTPException(400)
            return note.id

        @pytest.fixture
        def client(joined_get_session):
            app.dependency_overrides[get_session] = joined_get_session
            yield TestClient(app)
            app.dependency_overrides.clear()

        def test(client, joined_session):
            for text, status in [("a", 201), ("bad", 400), ("b", 201)]:
                assert client.post(f"/notes/{text}").status_code == status
            assert joined_session.scalars(select(Note.text)).all() == ["a", "b"]
        """
    ).assert_outcomes(passed=1)


ASYNC = """
    async def add(bind, text):
        async with async_session_scope(bind) as session:
            session.add(Note(text=text))
            await session.flush()
            if text == "bad":
                raise ValueError(text)

    {mark}
    async def test_session(async_joined_session):
        assert loops == [asyncio.get_running_loop()]
        async_joined_session.add(Note(text="kept"))
        await async_joined_session.commit()
        async_joined_session.add(Note(text="dropped"))
        await async_joined_session.flush()
        await async_joined_session.rollback()
        found = await async_joined_session.scalars(select(Note.text))
        assert found.all() == ["kept"]

    {mark}
    async def test_bind(
        async_joined_sessionmaker, async_joined_connection, async_joined_session
    ):
        await add(async_joined_sessionmaker, "first")
        with pytest.raises(ValueError, match="bad"):
            await add(async_joined_connection, "bad")
        await add(async_joined_connection, "second")
        found = await async_joined_session.scalars(select(Note.text))
        assert found.all() == ["first", "second"]

    get_session = async_session_dependency(async_engine)
    app = FastAPI()

    @app.post("/notes/{{text}}", status_code=201)
    async def add_note(
        text: str, session: Annotated[AsyncSession, Depends(get_session)]
    ) -> int:
        note = Note(text=text)
        session.add(note)
        await session.flush()
        if text == "bad":
            raise HTTPException(400)
        return note.id

    {mark}
    async def test_dependency(async_joined_get_session, async_joined_session):
        app.dependency_overrides[get_session] = async_joined_get_session
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport) as client:
            for text, status in [("a", 201), ("bad", 400), ("b", 201)]:
                response = await client.post(f"http://test/notes/{{text}}")
                assert response.status_code == status
        found = await async_joined_session.scalars(select(Note.text))
        assert found.all() == ["a", "b"]
    """


@pytest.mark.parametrize(
    "mark, options",
    [
        ("@pytest.mark.anyio", {}),
        ("", {"anyio_mode": "auto"}),
        ("@pytest.mark.asyncio", {}),
        ("", {"asyncio_mode": "auto"}),
        ('@pytest.mark.asyncio(loop_scope="module")', {}),
        ("@pytest.mark.asyncio", {"asyncio_default_test_loop_scope": "session"}),
    ],
    ids=["anyio", "anyio_auto", "strict", "auto", "loop_of_module", "loop_of_session"],
)
def test_async(project: Project, mark: str, options: dict[str, str]) -> None:
    """The async fixtures run in the event loop of the test, whoever runs that."""
    project.ini(**options)

    project.run(ASYNC.format(mark=mark)).assert_outcomes(passed=3)


def test_async_without_pytest_asyncio(project: Project) -> None:
    """anyio's plugin is enough."""
    tests = ASYNC.format(mark="@pytest.mark.anyio")

    result = project.run(tests, "-p", "no:asyncio", subprocess=True)

    result.assert_outcomes(passed=3)


def test_async_without_a_runner(project: Project) -> None:
    """Where no plugin runs the test in an event loop, the error says what to do."""
    result = project.run("def test(async_joined_session): pass", "-p", "no:asyncio")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Mark the test with @pytest.mark.anyio, or install*"])


def test_async_on_trio(project: Project) -> None:
    """SQLAlchemy knows asyncio alone, and whoever runs on trio is told."""
    result = project.run(
        """
        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test(async_joined_session):
            pass
        """
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture anyio_backend that returns 'asyncio'."])


def test_sessionmaker_as_bind(project: Project) -> None:
    """A sessionmaker gives joined sessions of its class, with its settings."""
    project.run(
        """
        def test(joined_session, joined_sessionmaker):
            assert joined_session.own and not joined_session.expire_on_commit
            with session_scope(joined_sessionmaker) as session:
                session.add(Note(text="kept"))

        @pytest.mark.anyio
        async def test_async(async_joined_session):
            assert async_joined_session.own
            assert async_joined_session.sync_session.expire_on_commit
            async_joined_session.add(Note(text="kept"))
            await async_joined_session.commit()
        """,
        binds="""
        from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
        from sqlalchemy.orm import Session, sessionmaker

        class Own(Session):
            own = True

        class AsyncOwn(AsyncSession):
            own = True

        @pytest.fixture
        def safesession_bind():
            return sessionmaker(engine, class_=Own, expire_on_commit=False)

        @pytest.fixture
        def safesession_async_bind():
            return async_sessionmaker(async_engine, class_=AsyncOwn)
        """,
    ).assert_outcomes(passed=2)


def test_bare_async_engine(project: Project) -> None:
    """Sessions of a bare async engine do not expire, as those of a scope."""
    project.run(
        """
        @pytest.mark.anyio
        async def test(async_joined_session):
            note = Note(text="kept")
            async_joined_session.add(note)
            await async_joined_session.commit()
            assert note.text == "kept"
        """
    ).assert_outcomes(passed=1)


def test_no_bind(project: Project) -> None:
    """Whoever has not said which database is told how to."""
    result = project.run(
        """
        def test(joined_session):
            pass

        @pytest.mark.anyio
        async def test_async(async_joined_session):
            pass
        """,
        binds="del safesession_bind, safesession_async_bind",
    )

    result.assert_outcomes(errors=2)
    told = "The joined fixtures have no database to connect to. Define a fixture"
    result.stdout.fnmatch_lines(
        [
            f"{told} safesession_bind in your conftest.py that returns your engine, *",
            f"{told} safesession_async_bind in your conftest.py that returns your *",
        ]
    )


@pytest.mark.parametrize(
    "bind, told",
    [
        ("async_engine", "an object of type AsyncEngine, without an engine"),
        ("sessionmaker()", "an object of type sessionmaker, without an engine"),
        ("sessionmaker(engine, binds={Note: engine})", "a sessionmaker with binds"),
    ],
)
def test_wrong_bind(project: Project, bind: str, told: str) -> None:
    """A bind that cannot be joined is refused, by the name of its fixture."""
    result = project.run(
        "def test(joined_session): pass",
        binds=f"""
        from sqlalchemy.orm import sessionmaker

        @pytest.fixture
        def safesession_bind():
            return {bind}
        """,
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [f"*InvalidArgument: safesession_bind() returned {told}*"]
    )


@pytest.mark.parametrize(
    "options",
    [
        "isolation_level='AUTOCOMMIT'",
        "connect_args={'isolation_level': None}",
        "connect_args={'isolation_level': 'IMMEDIATE'}",
        "poolclass=NullPool",
    ],
)
def test_sqlite(project: Project, options: str) -> None:
    """However SQLite's driver is told to begin, all is rolled back, and tables too."""
    project.run(
        """
        from sqlalchemy import inspect, text

        def test(joined_session, joined_sessionmaker):
            joined_session.execute(text("CREATE TABLE other (x)"))
            joined_session.add(Note(text="kept"))
            joined_session.commit()
            with session_scope(joined_sessionmaker) as session:
                session.add(Note(text="other"))

        def test_after():
            assert not inspect(engine).has_table("other")
        """,
        binds=f"""
        @pytest.fixture
        def safesession_bind():
            return create_engine(f"sqlite:///{{path}}", {options})
        """,
    ).assert_outcomes(passed=2)


def test_sqlite_begins_as_it_is_told(project: Project) -> None:
    """The transaction is of the engine's own kind, and not what a SAVEPOINT begins."""
    project.run(
        """
        import sqlite3
        from contextlib import closing

        def test(joined_connection):
            with closing(sqlite3.connect(engine.url.database, timeout=0)) as other:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
        """,
        binds="""
        @pytest.fixture
        def safesession_bind():
            options = {"isolation_level": "IMMEDIATE"}
            return create_engine(f"sqlite:///{path}", connect_args=options)
        """,
    ).assert_outcomes(passed=1)


def test_a_session_left_open_is_a_leak(project: Project) -> None:
    """A joined session that the code under test leaves open is found too."""
    result = project.run(
        """
        kept = []

        def test(joined_sessionmaker):
            kept.append(joined_sessionmaker())
            kept[0].add(Note(text="open"))
            kept[0].flush()

        def test_after(joined_session):
            assert joined_session.scalars(select(Note.text)).all() == []
        """
    )

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left open 1 session:", "*kept?0?.add(Note(*"])


def test_xdist(project: Project) -> None:
    """Workers of pytest-xdist have transactions of their own."""
    project.run(
        """
        @pytest.mark.parametrize("number", range(6))
        def test(joined_session, number):
            joined_session.add(Note(text="same"))
            joined_session.commit()
            assert joined_session.scalars(select(Note.text)).all() == ["same"]
        """,
        "-n",
        "2",
        subprocess=True,
    ).assert_outcomes(passed=6)
