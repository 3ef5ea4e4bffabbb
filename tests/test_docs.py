"""Every code block of the documents is run, or checked in some other way."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import metadata
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from sybil.typing import Evaluator

from safesession.__main__ import parser

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# These need no Python: each would be named here, and why.
WITHOUT_PYTHON: set[str] = set()

SET_UP = 'python3 -m venv .venv && .venv/bin/pip install -q "nox[uv]" && '
DEMO = f"{SET_UP}.venv/bin/nox -s demo"
TESTS = f"{SET_UP}.venv/bin/nox"


def check_commands(example: Example) -> None:
    """Check each command of a block of shell commands, without running it.

    pytest is run, on the files that the document has shown.
    """
    if example.parsed.startswith("$ pytest "):
        run_pytest(example.parsed)
        return
    for command in commands_of(example.parsed):
        check = next((c for c in CHECKS if c(command)), None)
        assert check is not None, f"nothing checks this command: {command}"


def run_pytest(block: str) -> None:
    """Run pytest, and require what is shown of its output, but for dots."""
    command, *shown = block.splitlines()
    arguments = [sys.executable, "-m", *shlex.split(command.removeprefix("$ "))]
    environment = os.environ | {"COLUMNS": "80", "PYTEST_ADDOPTS": ""}
    output = subprocess.run(
        arguments, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout
    told = iter(output.splitlines())
    for line in shown:
        assert line == "..." or line in told, output


def parse_files(document: Document) -> Iterator[Region]:
    """Find the blocks with a file name after their language: they are written to it."""
    for region in BLOCKS(document):
        if found := NAMED_FILE.fullmatch(region.lexemes["language"]):
            region.parsed = found[1], region.lexemes["source"]
            region.evaluator = write_file
            yield region


def write_file(example: Example) -> None:
    name, source = example.parsed
    Path(name).write_text(source, encoding="utf-8")


def commands_of(block: str) -> list[str]:
    """Return the commands of a block: its lines after a prompt, if it has prompts."""
    lines = [line.strip() for line in block.splitlines()]
    if any(line.startswith("$ ") for line in lines):
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line for line in lines if line and not line.startswith("#")]


def is_set_up(command: str) -> bool:
    """Recognise what `.ci/run` runs, or what nox runs for it."""
    return command in (DEMO, TESTS)


def is_install(command: str) -> bool:
    """Recognise an installation of this package with extras that it has."""
    words = shlex.split(command)
    known = metadata("safesession").get_all("Provides-Extra", [])
    if words[:2] not in (["pip", "install"], ["uv", "add"]):
        return False
    found = re.fullmatch(r"safesession(?:\[([\w,]+)\])?", words[-1])
    return found is not None and set((found[1] or known[0]).split(",")) <= set(known)


def is_nox(command: str) -> bool:
    """Recognise a session that the noxfile has."""
    found = re.fullmatch(r"(?:\.venv/bin/)?nox(?: -s (\w+))?", command)
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return found is not None and (found[1] is None or f"def {found[1]}(" in noxfile)


def is_verify(command: str) -> bool:
    """Recognise what our own command line takes."""
    words = shlex.split(command)
    if words[:1] != ["safesession"] and words[:3] != ["python", "-m", "safesession"]:
        return False
    with suppress(SystemExit):
        return parser().parse_args(words[words.index("safesession") + 1 :]) is not None
    return False


CHECKS: list[Callable[[str], bool]] = [is_set_up, is_install, is_nox, is_verify]
NAMED_FILE = re.compile(r"(?:python|toml) (\S+)")
BLOCKS = RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n"))
LANGUAGES: dict[str, Evaluator] = {
    "python": PythonEvaluator(),
    "console": check_commands,
    "bash": check_commands,
    "sh": check_commands,
    # What a program prints.
    "text": lambda example: None,
}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_blocks(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a document work, in order, in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    parsers = [CodeBlockParser(name, check) for name, check in LANGUAGES.items()]
    document = Document.parse(str(path), *parsers, parse_files)
    document.namespace["__name__"] = "__main__"

    for example in document:
        example.evaluate()

    # What a document need not show: its connections are closed here, and not by the
    # garbage collector in the midst of another test.
    for value in document.namespace.values():
        if isinstance(value, Engine):
            value.dispose()
        elif isinstance(value, AsyncEngine):
            asyncio.run(value.dispose())


def test_no_block_is_left_out(path: Path) -> None:
    """Each block has a language that is run or checked, and Python is among them."""
    text = path.read_text(encoding="utf-8")

    languages = [block.lexemes["language"] for block in BLOCKS(Document(text, ""))]

    files = set(filter(NAMED_FILE.fullmatch, languages))
    assert set(languages) - files <= set(LANGUAGES)
    assert "python" in languages or files or path.name in WITHOUT_PYTHON
    # Not by indentation alone, nor as a prompt of the interpreter.
    assert not re.search(r"^ *>>> ", text, re.MULTILINE)


def test_readme_opens_with_the_commands_that_ci_runs() -> None:
    """The README's commands are whole, and CI runs the tests by the same one."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line.strip().removeprefix("$ ") for line in readme.splitlines()]

    assert [DEMO, TESTS] == [line for line in commands if line in (DEMO, TESTS)]
    assert TESTS in [line.strip() for line in ci.splitlines()]
