"""Both type checkers report what is wrong in `wrong.py`, line by line, and no more."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WRONG = Path(__file__).with_name("wrong.py")


def reported_by_mypy() -> set[int]:
    """Return the lines that mypy reports."""
    problems = [json.loads(line) for line in run("mypy", "--output=json").splitlines()]
    return {problem["line"] for problem in problems if problem["severity"] == "error"}


def reported_by_pyright() -> set[int]:
    """Return the lines that pyright reports."""
    problems = json.loads(run("pyright", "--outputjson"))["generalDiagnostics"]
    return {
        problem["range"]["start"]["line"] + 1
        for problem in problems
        if problem["severity"] == "error"
    }


def run(checker: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, WRONG],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout
    return done.stdout


@pytest.mark.parametrize("reported", [reported_by_mypy, reported_by_pyright])
def test_wrong_uses_are_reported(reported: Callable[[], set[int]]) -> None:
    """Each line marked as wrong is reported, and no other is."""
    lines = WRONG.read_text(encoding="utf-8").splitlines()
    marked = {n for n, line in enumerate(lines, 1) if line.endswith("  # wrong")}

    found = reported()

    assert marked
    assert [] == [lines[n - 1] for n in sorted(marked - found)], "not reported"
    assert [] == [lines[n - 1] for n in sorted(found - marked)], "reported"
