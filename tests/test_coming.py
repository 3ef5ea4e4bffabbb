"""The pages for those who come from elsewhere hold together.

What they say of others is made by docs/coming/facts.py, from their released versions:
`nox -s coming` makes it again.
"""

import ast
import asyncio
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from safesession.testing import verify
from safesession.testing._report import PROMISES

pytestmark = pytest.mark.once

COMING = Path(__file__).parents[1] / "docs" / "coming"
INDEX = (COMING / "index.md").read_text(encoding="utf-8")
PAGES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted(COMING.glob("*.md"))
    if path.stem != "index"
}


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The program, in a directory of its own."""
    monkeypatch.syspath_prepend(COMING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return import_module("facts")


@pytest.fixture(params=PAGES.values(), ids=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def verdicts(page: str) -> dict[int, list[str]]:
    """Return what the page says of each promise: a verdict for each column."""
    lines = re.findall(r"^ ?(\d+)  (.*?)  +((?:kept|BROKEN|-).*)$", page, re.MULTILINE)
    return {
        int(number): told.split()
        for number, promise, told in lines
        if PROMISES[int(number)] == promise
    }


def broken(page: str, columns: list[str]) -> Iterator[tuple[int, str]]:
    for number, told in verdicts(page).items():
        for column, verdict in zip(columns, told, strict=True):
            if verdict == "BROKEN":
                yield number, column


def test_index_names_each_page() -> None:
    """Each page is in the index's table, and below it in the site."""
    linked = re.findall(r"^\| .* \[.*\]\(([\w-]+)\.md\) \|$", INDEX, re.MULTILINE)
    below = re.search(
        r"^:::\{toctree\}\n:hidden:\n\n([\w\n-]*)\n:::$", INDEX, re.MULTILINE
    )

    assert below is not None
    assert linked == below[1].splitlines()
    assert set(PAGES) == set(linked)


def test_code_defines_what_is_asked(facts: Any, page: str) -> None:
    """What the page's command names stands in the blocks of the page."""
    defined = {
        f"{name.removesuffix('.py')}:{found}"
        for name, source in facts.modules(page).items()
        for found in top_level(source)
    }

    assert set(facts.columns(page)) <= defined


def top_level(source: str) -> Iterator[str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))


def test_versions_are_named(facts: Any, page: str) -> None:
    """The page says of which versions it speaks, of SQLAlchemy's among others."""
    assert "sqlalchemy" in facts.pins(page)


def test_tables_are_of_what_is_asked(facts: Any, page: str) -> None:
    """Both tables have a column for each name in the command, in its order."""
    columns = facts.columns(page)
    header = facts.BEHAVIOUR.search(page)[0].splitlines()[0]
    told = facts.PROMISES.search(page)[0].splitlines()[0]

    assert header == f"| case | {' | '.join(f'`{column}`' for column in columns)} |"
    assert told.split() == columns
    assert verdicts(page).keys() == PROMISES.keys()


def test_what_is_broken_is_explained(facts: Any, page: str) -> None:
    """Each promise that a column breaks has its sentence, and no other has one."""
    _, _, text = facts.PROMISES.split(page, maxsplit=1)[-1].partition("\n")
    text, _, _ = text.partition("## What to watch")
    numbers = re.findall(r"^- (\d+(?:, \d+)*)", text, re.MULTILINE)
    explained = [int(number) for each in numbers for number in each.split(", ")]
    first, *_ = facts.columns(page)
    kept = re.findall(r"\bkeeps ([^.:]*)", text)

    assert sorted(explained) == sorted(
        {n for n, _ in broken(page, facts.columns(page))}
    )
    for number in re.findall(r"\d+", " ".join(kept)):
        assert verdicts(page)[int(number)][0] == "kept", first


def test_replacement_keeps_all_that_is_asked(facts: Any, page: str) -> None:
    """The code after is held against the contract, and not by the page alone."""
    namespace: dict[str, Any] = {}
    exec(facts.modules(page)["after.py"], namespace)
    (asked,) = [name for name in facts.columns(page) if name.startswith("after:")]

    verify(namespace[asked.removeprefix("after:")]).raise_for_broken()

    assert "after" not in {
        column.partition(":")[0] for _, column in broken(page, facts.columns(page))
    }
    dispose(namespace)


def test_false_table_is_made_anew(facts: Any, tmp_path: Path) -> None:
    """The program takes nothing from the page but what it asks, and of whom."""
    page = PAGES["sessionmaker-begin"]
    false = page.replace("BROKEN", "kept").replace("begins anew", "is refused")
    for name, source in facts.modules(page).items():
        (tmp_path / name).write_text(source, encoding="utf-8")

    anew, examples = facts.made_anew(false)

    assert "begins anew, 1 connection out" in anew
    assert {(6, "before:SessionLocal"), (7, "before:SessionLocal")} <= {
        *broken(anew, facts.columns(page))
    }
    assert "a statement afterwards is executed" in examples
    for name in ("before", "after"):
        dispose(vars(import_module(name)))


def dispose(namespace: dict[str, Any]) -> None:
    """Close what the garbage collector would close within another test."""
    for value in namespace.values():
        if isinstance(value, Engine):
            value.dispose()
        elif isinstance(value, AsyncEngine):
            asyncio.run(value.dispose())
