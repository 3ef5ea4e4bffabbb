"""The pytest plugin waits for who is to close a thing, and closes what nobody does."""

import pytest

from leaks import PREAMBLE
from projects import Project, leaking

pytestmark = pytest.mark.once
pytest_plugins = ["pytester", "plugin_fixtures"]
PROJECT = (PREAMBLE,)


def test_what_a_fixture_closes(project: Project) -> None:
    """What a fixture of the test closes in its teardown is no leak."""
    project.run(
        """
        @pytest.fixture
        def session():
            session = Session(engine)
            yield session
            session.close()

        def test(session, no_session_leaks):
            session.execute(ONE)
        """
    ).assert_outcomes(passed=1)


def test_what_a_wider_fixture_holds(project: Project) -> None:
    """What a fixture of wider scope opened is not for the test to close."""
    project.run(
        """
        @pytest.fixture(scope="module")
        def connection():
            with create_engine(f"sqlite:///{path}").connect() as connection:
                yield connection

        @pytest.fixture(scope="session")
        def session():
            with Session(create_engine(f"sqlite:///{path}")) as session:
                yield session

        @pytest.fixture(scope="session")
        def begun():
            with Session(create_engine(f"sqlite:///{path}")) as session:
                session.begin()
                yield session

        @pytest.fixture(scope="session")
        def added():
            with Session(create_engine(f"sqlite:///{path}")) as session:
                yield session

        def test(connection, session, begun, added):
            session.execute(ONE)
            added.begin()

        def test_again(connection, session, begun, added):
            session.commit()
            session.execute(ONE)
            begun.execute(ONE)
            added.execute(ONE)
            with Session(connection) as session:
                session.execute(ONE)
        """
    ).assert_outcomes(passed=2)


def test_the_next_test_is_not_blamed(project: Project) -> None:
    """What an earlier test left is not reported again, and its pool has it back."""
    project.run(
        """
        def test_leaks():
            kept.append(engine.connect())

        def test_leaks_session():
            session = Session(engine)
            session.execute(ONE)
            kept.append(session)

        def test_needs_the_connection():
            assert engine.pool.checkedout() == 0
            with engine.connect():
                pass
        """
    ).assert_outcomes(passed=3, errors=2)


@leaking
def test_async_engine_has_its_connection_back(project: Project) -> None:
    """An async connection is terminated, where the driver's dialect can do that."""
    result = project.run(
        """
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1)
        static = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

        async def leak():
            session = AsyncSession(engine)
            await session.execute(ONE)
            in_memory = await static.connect()
            kept.extend([session, in_memory])
            for connection in (await session.connection(), in_memory):
                raw = await connection.get_raw_connection()
                kept.append(raw.driver_connection)

        def test():
            asyncio.run(leak())

        def test_after():
            left = int(not engine.dialect.has_terminate)
            assert engine.pool.checkedout() == left
            assert kept[1].sync_connection.connection.is_valid
            for connection in kept[2:]:
                connection.stop()
        """
    )

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["The test has ended and left open 1 session and 1 connection:"]
    )


@leaking
def test_what_cannot_be_closed(project: Project) -> None:
    """A leak that cannot be closed is told in the log, and no test fails for it."""
    result = project.run(
        """
        def test(monkeypatch):
            session = Session(engine)
            session.execute(ONE)
            session.close = lambda: 1 / 0
            kept.append(session)

        def test_after(caplog):
            kept[0].__dict__.clear()
        """
    )

    result.assert_outcomes(passed=2, errors=1)


def test_another_thread_is_waited_for(project: Project) -> None:
    """What another thread is about to close when the test ends is no leak."""
    project.run(
        """
        opened, to_close = threading.Event(), threading.Event()

        def serve(action):
            action()
            opened.set()
            to_close.wait(10)
            kept.pop().close()

        def open_session():
            kept.append(Session(engine))
            kept[0].execute(ONE)

        @pytest.fixture
        def closing():
            yield
            threading.Timer(0.05, to_close.set).start()

        @pytest.mark.parametrize(
            "action", [lambda: kept.append(engine.connect()), open_session]
        )
        def test(closing, action):
            to_close.clear()
            opened.clear()
            threading.Thread(target=serve, args=[action]).start()
            assert opened.wait(10)
        """
    ).assert_outcomes(passed=2)


def test_another_thread_is_not_waited_for_forever(project: Project) -> None:
    """What a thread that lives on holds is a leak, and left to it."""
    project.run(
        """
        opened, to_close = threading.Event(), threading.Event()

        def serve():
            with engine.connect():
                opened.set()
                to_close.wait(10)

        def test():
            threading.Thread(target=serve).start()
            assert opened.wait(10)

        def test_after():
            assert engine.pool.checkedout() == 1
            to_close.set()
        """
    ).assert_outcomes(passed=2, errors=1)
