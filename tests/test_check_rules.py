"""Each rule has a page whose faulty program it finds, and whose cure it lets pass."""

import re
from pathlib import Path

import pytest

from safesession.lint._check import check
from safesession.lint._rule import RULES
from safesession.lint._settings import Settings

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADINGS = [
    "## A faulty program",
    "## What happens at run time",
    "## The replacement",
    "## To silence it",
]


@pytest.mark.parametrize("code", RULES)
def test_page(code: str, tmp_path: Path) -> None:
    """What the page calls faulty is found, and not what it puts in its place."""
    page = (DOCS / "rules" / f"{code}.md").read_text(encoding="utf-8")
    faulty, replaced = page.split("## The replacement")
    program = "".join(BLOCK.findall(faulty))
    settings = Settings(select=frozenset({code}))
    path = tmp_path / "page.py"
    path.write_text(program, encoding="utf-8")
    found = check([path], settings).findings
    path.write_text(program + "".join(BLOCK.findall(replaced)), encoding="utf-8")
    found_in_all = check([path], settings).findings

    assert page.startswith(f"# {code}: {RULES[code].name}\n")
    assert HEADINGS == re.findall("^## .*", page, re.MULTILINE)
    assert f"`# noqa: {code}`" in page
    assert found
    assert set(found_in_all) <= set(found)


def test_every_page_is_of_a_rule_and_listed() -> None:
    """The table has each rule, with its name and a link to its page."""
    table = (DOCS / "check.md").read_text(encoding="utf-8")

    assert sorted(RULES) == sorted(path.stem for path in DOCS.glob("rules/*.md"))
    for code, rule in RULES.items():
        assert f"| [{code}](rules/{code}.md) | {rule.name} | " in table
