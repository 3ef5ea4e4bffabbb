"""Projects with tests of their own, in which pytest is run with the plugin."""

from textwrap import dedent

import pytest

leaking = pytest.mark.allow_session_leaks(reason="the test within leaks")


class Project:
    """A project whose test module and conftest begin with these."""

    def __init__(
        self, pytester: pytest.Pytester, preamble: str, conftest: str = ""
    ) -> None:
        self.pytester = pytester
        self._preamble = preamble
        self._conftest = conftest
        self.ini(no_session_leaks=True)

    def ini(self, **options: object) -> None:
        """Write the configuration anew."""
        options.setdefault("asyncio_default_fixture_loop_scope", "function")
        # What sqlite3 says of a connection that is collected, from Python 3.13 on.
        options.setdefault("filterwarnings", "ignore:unclosed database:ResourceWarning")
        lines = [f"{name} = {value}" for name, value in options.items()]
        self.pytester.makeini("\n".join(["[pytest]", *lines]))

    def run(
        self, tests: str, *arguments: str, binds: str = "", subprocess: bool = False
    ) -> pytest.RunResult:
        """Run tests, in this process where coverage is to see the plugin."""
        self.pytester.makeconftest(self._conftest + dedent(binds))
        self.pytester.makepyfile(test_it=self._preamble + dedent(tests))
        if subprocess:
            return self.pytester.runpytest_subprocess(*arguments, timeout=60)
        return self.pytester.runpytest_inprocess(*arguments)
