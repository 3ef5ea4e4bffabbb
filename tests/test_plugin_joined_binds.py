"""The pytest plugin's sessions are of the bind that the project has told it of."""

import pytest

from joined import CONFTEST, IMPORTS
from projects import Project

pytestmark = pytest.mark.once
pytest_plugins = ["pytester", "plugin_fixtures"]
PROJECT = (IMPORTS, CONFTEST)


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
