"""The hooks of pytest that fail a test for what it leaves open."""

import os
from collections import Counter
from collections.abc import Generator, Set
from typing import Any

import pytest

from ._leaks import Leak, OpenSession, Watch, close


class Watching:
    """Registered as a plugin where one test at least is watched."""

    def __init__(self, watched: Set[pytest.Item]) -> None:
        self._watched = watched
        self._watch = Watch()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        # Not for each test anew: SQLAlchemy's listeners cannot be removed while another
        # thread's pool is calling them.
        with self._watch.listening():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        if item in self._watched:
            self._watch.start()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        if fixturedef.scope == "function":
            return (yield)
        # What outlives the test is not the test's to close.
        with self._watch.exempting():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        # The outermost: what a fixture of the test closes is no leak.
        try:
            result = yield
        except (Exception, pytest.fail.Exception) as error:
            if told := self._ended(item):
                error.add_note(told)
            raise
        if told := self._ended(item):
            pytest.fail(told, pytrace=False)
        return result

    def _ended(self, item: pytest.Item) -> str:
        if item not in self._watched:
            return ""
        leaks = self._watch.stop()
        told = tell(leaks, item.config) if leaks else ""
        close(leaks)
        return told


def tell(leaks: list[Leak], config: pytest.Config) -> str:
    """Say what was left open, and by which line."""
    told = Counter(_tell(leak, config) for leak in leaks)
    lines = [f"{text}{f'  ({n} times)' if n > 1 else ''}" for text, n in told.items()]
    return (
        f"The test has ended and left open {_count(leaks)}:\n"
        + "\n".join(lines)
        + "\nOpen it in a 'with' block, such as session_scope(), or have a fixture "
        "close it. A test that is to leave it open is marked "
        "@pytest.mark.allow_session_leaks."
    )


def _tell(leak: Leak, config: pytest.Config) -> str:
    place = leak.place
    if isinstance(leak, OpenSession):
        told = "began the transaction of a session"
        if leak.connections:
            told += " and checked out its connection"
    else:
        told = "checked out a connection"
    if leak.is_collected():
        told += ", and left it to the garbage collector"
    told = f"  {place.function} {told}"
    if place.path:
        path = os.path.relpath(place.path, config.invocation_params.dir)
        told = f"  {path}:{place.line}:{told[1:]}\n    {place.source()}"
    return told


def _count(leaks: list[Leak]) -> str:
    sessions = sum(isinstance(leak, OpenSession) for leak in leaks)
    numbers = {"session": sessions, "connection": len(leaks) - sessions}
    return " and ".join(
        f"{number} {word}{'s' if number > 1 else ''}"
        for word, number in numbers.items()
        if number
    )
