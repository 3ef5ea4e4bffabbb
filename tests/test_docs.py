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
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from sybil.typing import Evaluator

import safesession
from public_api import COMMAND
from safesession import errors, fastapi, retry, testing
from safesession.__main__ import parser

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
DIAGRAMS = sorted(ROOT.glob("docs/diagrams/*.svg"))
CHARTS = sorted(ROOT.glob("docs/performance/*.svg"))
# What these include is the README's; or they are words, or commands, alone.
WITHOUT_PYTHON = {
    ROOT / "docs" / f"{name}.md"
    for name in ("glossary", "index", "limits", "performance/figures", "releasing")
}

SHOWS_A_LEAK = pytest.mark.allow_session_leaks(reason="it is one of the faults")
LEAKING = {"why.md", "SAFE013.md"}
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
    # By its name, or from a clone.
    found = re.fullmatch(r"(?:safesession|\.)(?:\[([\w,]+)\])?", words[-1])
    return found is not None and set((found[1] or known[0]).split(",")) <= set(known)


def is_nox(command: str) -> bool:
    """Recognise a session that the noxfile has."""
    found = re.fullmatch(r"(?:\.venv/bin/)?nox(?: -s (\w+))?", command)
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return found is not None and (found[1] is None or f"def {found[1]}(" in noxfile)


def is_server(command: str) -> bool:
    """Recognise a server of an app that the document has shown, in a file."""
    found = re.fullmatch(r"uvicorn (\w+):(\w+)", command)
    return found is not None and f"{found[2]} = FastAPI(" in Path(
        f"{found[1]}.py"
    ).read_text(encoding="utf-8")


def is_record(command: str) -> bool:
    """Recognise what records the public API."""
    return command == COMMAND


def is_verify(command: str) -> bool:
    """Recognise what our own command line takes."""
    words = shlex.split(command)
    if words[:1] != ["safesession"] and words[:3] != ["python", "-m", "safesession"]:
        return False
    with suppress(SystemExit):
        return parser().parse_args(words[words.index("safesession") + 1 :]) is not None
    return False


CHECKS: list[Callable[[str], bool]] = [
    is_set_up,
    is_install,
    is_nox,
    is_server,
    is_record,
    is_verify,
]
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


def parameter(path: Path) -> Any:
    """Return a document as a parameter, with what it is allowed to do."""
    marks = [SHOWS_A_LEAK] if path.name in LEAKING else []
    return pytest.param(path, id=str(path.relative_to(ROOT)), marks=marks)


@pytest.fixture(params=[parameter(path) for path in DOCUMENTS])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_blocks(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """The blocks of a document work, in order, in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    parsers = [CodeBlockParser(name, check) for name, check in LANGUAGES.items()]
    document = Document.parse(str(path), *parsers, parse_files)
    document.namespace["__name__"] = "__main__"

    evaluated = 0
    for example in document:
        example.evaluate()
        evaluated += 1

    languages = [block.lexemes["language"] for block in BLOCKS(document)]
    assert len(languages) == evaluated
    # The summary tells how many that were: see conftest.py.
    record_property("blocks", evaluated - languages.count("text"))

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
    assert "python" in languages or files or path in WITHOUT_PYTHON
    # Not by indentation alone, nor as a prompt of the interpreter or a directive.
    assert not re.search(r"^ *(>>> |:::+ *\{code)", text, re.MULTILINE)


def test_each_error_is_explained() -> None:
    """The page on errors has a heading for each of them."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)", page, re.MULTILINE)

    assert {*errors.__all__, "ContractBroken"} <= set(headings)


@pytest.mark.parametrize("module", [safesession, fastapi, retry, testing])
def test_each_public_name_is_on_the_api_page(module: ModuleType) -> None:
    """A name is there by itself, or with all the members of its module."""
    page = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    whole = re.findall(r"automodule:: (\S+)\n   :members:\n", page)
    named = re.findall(r"auto(?:class|exception|function):: (\S+)", page)

    names = {f"{module.__name__}.{name}" for name in module.__all__}

    assert module.__name__ in whole or names <= set(named)


def test_markup_is_for_all_readers(path: Path) -> None:
    """Images and columns have words, and no box to tick is without a label."""
    text = path.read_text(encoding="utf-8")
    headers = re.findall(r"^(\|.*)\n\|[-|: ]+\n", text, re.MULTILINE)
    cells = [cell.strip() for header in headers for cell in header.split("|")[1:-1]]

    assert all(cells)
    assert not re.search(r"!\[\s*\]|^ *- \[[ x]\]", text, re.MULTILINE)


@pytest.mark.parametrize("path", DIAGRAMS, ids=lambda path: path.stem)
def test_diagrams_are_for_all_readers(path: Path) -> None:
    """A screen reader is told what a diagram shows, and no colour is fixed."""
    figure = ElementTree.parse(path).getroot()
    svg = figure.find("svg")
    assert svg is not None
    title, desc = svg.find("title"), svg.find("desc")
    assert title is not None and desc is not None

    assert "img" == svg.get("role")
    # In the name, as Orca reads no description of an image when it reads a page.
    assert f"{title.get('id')} {desc.get('id')}" == svg.get("aria-labelledby")
    assert title.text and desc.text
    assert not [
        one for one in svg.iter() if {"fill", "stroke", "style"} & {*one.keys()}
    ]


@pytest.mark.parametrize("path", CHARTS, ids=lambda path: path.stem)
def test_charts_can_be_read_in_the_light_and_in_the_dark(path: Path) -> None:
    """The contrast of what is written in a chart is 4.5 on white and on black."""
    texts = re.findall(r"<text [^>]*>", path.read_text(encoding="utf-8"))
    colours = [re.findall(r"fill: #(\w{6})", text) for text in texts]

    assert colours
    for (colour,) in colours:
        assert 4.5 <= 1.05 / (luminance(colour) + 0.05)
        assert 4.5 <= (luminance(colour) + 0.05) / 0.05


def luminance(colour: str) -> float:
    """Return the relative luminance, as WCAG has it, of a colour like 757575."""
    parts = [part / 255 for part in bytes.fromhex(colour)]
    linear = [((p + 0.055) / 1.055) ** 2.4 if p > 0.04 else p / 12.92 for p in parts]
    return sum(
        share * part
        for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )


def test_readme_opens_with_the_commands_that_ci_runs() -> None:
    """The README's commands are whole, and CI runs the tests by the same one."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line.strip().removeprefix("$ ") for line in readme.splitlines()]

    assert [DEMO, TESTS] == [line for line in commands if line in (DEMO, TESTS)]
    assert TESTS in [line.strip() for line in ci.splitlines()]
