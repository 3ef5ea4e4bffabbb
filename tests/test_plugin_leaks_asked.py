"""The pytest plugin looks for leaks where it is asked to, beside other failures too."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from leaks import PREAMBLE
from projects import Project, leaking

pytestmark = pytest.mark.once
pytest_plugins = ["pytester", "plugin_fixtures"]
PROJECT = (PREAMBLE,)


def listening() -> tuple[int, int]:
    """Count who listens to each pool and session; this run's own plugin does."""
    pool = create_engine("sqlite://").pool
    return len(pool.dispatch.checkout), len(Session().dispatch.after_begin)


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
