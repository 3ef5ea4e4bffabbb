"""The pytest plugin fails a test that leaks, and names the line that opened it."""

from textwrap import dedent

import pytest

from leaks import CLEAN, LEAKS, PREAMBLE, SESSIONS
from projects import Project, leaking

pytestmark = pytest.mark.once
pytest_plugins = ["pytester", "plugin_fixtures"]
PROJECT = (PREAMBLE,)
ADVICE = (
    "Open it in a 'with' block, such as session_scope(), or have a fixture close it. "
    "A test that is to leave it open is marked @pytest.mark.allow_session_leaks."
)


def line_of(tests: str, mark: str = "# here") -> int:
    """Return the number of the marked line, as it is in the test module."""
    text = PREAMBLE + dedent(tests)
    return next(n for n, line in enumerate(text.splitlines(), 1) if mark in line)


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
