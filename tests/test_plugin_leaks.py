"""The pytest plugin fails a test that leaks, and names the line that opened it."""

from textwrap import dedent

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from leaks import CLEAN, LEAKS, PREAMBLE, SESSIONS
from projects import Project

pytestmark = pytest.mark.once

pytest_plugins = ["pytester"]

ADVICE = (
    "Open it in a 'with' block, such as session_scope(), or have a fixture close it. "
    "A test that is to leave it open is marked @pytest.mark.allow_session_leaks."
)


leaking = pytest.mark.allow_session_leaks(reason="the test within leaks")


def line_of(tests: str, mark: str = "# here") -> int:
    """Return the number of the marked line, as it is in the test module."""
    text = PREAMBLE + dedent(tests)
    return next(n for n, line in enumerate(text.splitlines(), 1) if mark in line)


def listening() -> tuple[int, int]:
    """Count who listens to each pool and session; this run's own plugin does."""
    pool = create_engine("sqlite://").pool
    return len(pool.dispatch.checkout), len(Session().dispatch.after_begin)


@pytest.fixture
def project(collected: None, pytester: pytest.Pytester) -> Project:
    return Project(pytester, PREAMBLE)


@leaking
@pytest.mark.parametrize("case", LEAKS)
def test_connection_left_out(project: Project, case: str) -> None:
    """A connection that is out when the test has ended fails it, by file and line."""
    tests = LEAKS[case]

    result = project.run(tests)

    result.assert_outcomes(passed=1, errors=1)
    collected = ", and left it to the garbage collector" if "collected" in case else ""
    line = line_of(tests)
    source = (PREAMBLE + dedent(tests)).splitlines()[line - 1].strip()
    function = {
        "thread": "work",
        "fixture": "connection",
        "teardown": "connect",
        "async_engine": "connect",
        "async_engine_collected": "work",
        "connection_of_function": "opened",
    }.get(case, "test")
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test*",
            "The test has ended and left open 1 connection:",
            f"  test_it.py:{line}: {function}() checked out a connection{collected}",
            f"    {source}",
            ADVICE,
        ],
        consecutive=True,
    )


@leaking
@pytest.mark.parametrize("case", SESSIONS)
def test_session_left_open(project: Project, case: str) -> None:
    """A session whose transaction has not ended fails the test, by file and line."""
    tests, what = SESSIONS[case]

    result = project.run(tests)

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "The test has ended and left open 1 session:",
            f"  test_it.py:{line_of(tests)}: test() began the transaction of a session"
            + what,
        ],
        consecutive=True,
    )


@pytest.mark.parametrize("case", CLEAN)
def test_nothing_left_open(project: Project, case: str) -> None:
    """What was closed, whichever way, is no leak."""
    body = dedent(CLEAN[case]).strip().replace("\n", "\n    ")

    result = project.run(f"def test():\n    {body}\n")

    result.assert_outcomes(passed=1)


def test_several_leaks(project: Project) -> None:
    """Each line is named once, in the order in which they opened something."""
    result = project.run(
        """
        many = create_engine(f"sqlite:///{path}")

        def test():
            session = Session(many)
            session.execute(ONE)
            kept.append(session)
            kept.extend(many.connect() for _ in range(3))
        """
    )

    result.stdout.fnmatch_lines(
        [
            "The test has ended and left open 1 session and 3 connections:",
            "  test_it.py:*: test() began the transaction of a session and*",
            "    session.execute(ONE)",
            "  test_it.py:*: <genexpr>() checked out a connection",
            "    kept.extend(many.connect() for _ in range(3))  (3 times)",
            ADVICE,
        ],
        consecutive=True,
    )


@leaking
def test_no_line_of_the_users(project: Project) -> None:
    """A thread that runs nothing of the user's is named itself."""
    result = project.run(
        """
        def test():
            thread = threading.Thread(target=engine.connect, name="poller")
            thread.start()
            thread.join()
        """
    )

    result.stdout.fnmatch_lines(
        ["  thread poller checked out a connection, and left it to the garbage coll*"]
    )


def test_line_in_a_request(project: Project) -> None:
    """Behind FastAPI, Starlette and anyio it is the endpoint that is named."""
    tests = """
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        app = FastAPI()

        @app.get("/")
        def endpoint():
            session = Session(engine)
            session.execute(ONE)  # here
            kept.append(session)

        def test():
            with TestClient(app) as client:
                assert client.get("/").status_code == 200
        """

    result = project.run(tests)

    result.stdout.fnmatch_lines([f"  test_it.py:{line_of(tests)}: endpoint() began *"])


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


@leaking
def test_off(project: Project) -> None:
    """Where nothing asks for it no test fails, and nothing listens."""
    project.ini()

    project.run(
        f"""
        def test(request):
            kept.append(engine.connect())
            listening = engine.pool.dispatch.checkout, Session().dispatch.after_begin
            assert tuple(map(len, listening)) == {listening()}
        """
    ).assert_outcomes(passed=1)


@leaking
def test_fixture(project: Project) -> None:
    """Without the ini option, the tests with the fixture are watched, and no others."""
    project.ini()

    project.run(
        """
        many = create_engine(f"sqlite:///{path}")

        def test_watched(no_session_leaks):
            kept.append(many.connect())

        @pytest.mark.usefixtures("no_session_leaks")
        def test_watched_too():
            kept.append(many.connect())

        def test_not_watched():
            kept.append(many.connect())

        def test_dynamic(request):
            with pytest.raises(pytest.fail.Exception, match="Name it as an argument"):
                request.getfixturevalue("no_session_leaks")
        """
    ).assert_outcomes(passed=4, errors=2)


@leaking
def test_marker(project: Project) -> None:
    """A marked test may leak, whatever else asks."""
    project.run(
        """
        @pytest.mark.allow_session_leaks(reason="the interpreter ends")
        def test(no_session_leaks):
            kept.append(engine.connect())
        """,
        "--strict-markers",
    ).assert_outcomes(passed=1)


def test_nothing_listens_afterwards(project: Project) -> None:
    """The listeners are gone when the run has ended."""
    before = listening()

    project.run("def test(): pass").assert_outcomes(passed=1)

    assert before == listening()


def test_failure_and_leak(project: Project) -> None:
    """A test that fails and leaks is shown to do both."""
    result = project.run(
        """
        def test():
            kept.append(engine.connect())
            assert 1 == 2
        """
    )

    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*test() checked out a connection", "E*assert 1 == 2"])


@pytest.mark.parametrize("failing", ["raise OSError('no')", "pytest.fail('no')"])
def test_failing_teardown_and_leak(project: Project, failing: str) -> None:
    """A teardown that fails keeps its error, and the leak is a note on it."""
    result = project.run(
        f"""
        @pytest.fixture
        def failing():
            yield
            {failing}

        def test(failing):
            kept.append(engine.connect())

        def test_without_leak(failing):
            pass
        """
    )

    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(["E*no", "E*test() checked out a connection"])


def test_failing_setup(project: Project) -> None:
    """What a fixture leaves that fails after opening it is named too."""
    result = project.run(
        """
        @pytest.fixture
        def connection():
            kept.append(engine.connect())
            raise OSError("no")

        def test(connection):
            pass
        """
    )

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*connection() checked out a connection"])


def test_xdist(project: Project) -> None:
    """Each worker of pytest-xdist watches its own tests."""
    result = project.run(
        """
        many = create_engine(f"sqlite:///{path}")

        @pytest.mark.parametrize("number", range(6))
        def test(number):
            if number % 2:
                kept.append(many.connect())
        """,
        *("-n", "2"),
        subprocess=True,
    )

    result.assert_outcomes(passed=6, errors=3)
    result.stdout.fnmatch_lines(["*test_it.py:*: test() checked out a connection"])


def test_start_without_sqlalchemy(project: Project) -> None:
    """A run that asks for nothing does not import SQLAlchemy."""
    project.ini()
    project.pytester.makepyfile(
        """
        import sys

        def test():
            assert "sqlalchemy" not in sys.modules
        """
    )

    project.pytester.runpytest_subprocess(timeout=60).assert_outcomes(passed=1)
