"""Both type checkers pass `api.py`, and report what is wrong in `wrong.py`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def reported_by_mypy(name: str) -> set[int]:
    """Return the lines of a file that mypy reports."""
    problems = [
        json.loads(line) for line in run("mypy", "--output=json", name).splitlines()
    ]
    return {problem["line"] for problem in problems if problem["severity"] == "error"}


def reported_by_pyright(name: str) -> set[int]:
    """Return the lines of a file that pyright reports."""
    problems = json.loads(run("pyright", "--outputjson", name))["generalDiagnostics"]
    return {
        problem["range"]["start"]["line"] + 1
        for problem in problems
        if problem["severity"] == "error"
    }


def run(checker: str, option: str, name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", checker, option, HERE / name],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout
    return done.stdout


CHECKERS = [reported_by_mypy, reported_by_pyright]


@pytest.mark.parametrize("reported", CHECKERS)
def test_public_signatures_are_as_designed(
    reported: Callable[[str], set[int]],
) -> None:
    """No assertion on a type is reported."""
    assert set() == reported("api.py")


@pytest.mark.parametrize("reported", CHECKERS)
def test_wrong_uses_are_reported(reported: Callable[[str], set[int]]) -> None:
    """Each line marked as wrong is reported, and no other is."""
    lines = (HERE / "wrong.py").read_text(encoding="utf-8").splitlines()
    marked = {n for n, line in enumerate(lines, 1) if line.endswith("  # wrong")}

    found = reported("wrong.py")

    assert marked
    assert [] == [lines[n - 1] for n in sorted(marked - found)], "not reported"
    assert [] == [lines[n - 1] for n in sorted(found - marked)], "reported"
