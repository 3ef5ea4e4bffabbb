"""Make the tables of a page, from what the packages do that it names.

python docs/coming/facts.py fastapi-utils            # says whether the page is true
python docs/coming/facts.py --write fastapi-utils    # makes it so

It is run where the page's packages are installed, in the versions that it names:
`nox -s coming` makes these environments.
"""

import argparse
import difflib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from behaviour import OfBlocks, OfRequests

from safesession.testing import Report, verify
from safesession.testing._factories import harness_for, is_in_request
from safesession.testing._report import table
from safesession.testing._trial import Trial

HERE = Path(__file__).parent
PIN = re.compile(r"`([\w.-]+)==([\w.]+)`")
COMMAND = re.compile(r"^\$ safesession verify (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python *(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BEHAVIOUR = re.compile(r"^\| case \| .*\n(?:\|.*\n)+", re.MULTILINE)
PROMISES = re.compile(r"(?<=^```text\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)


def pins(page: str) -> dict[str, str]:
    """Return the packages that a page was written with, and their versions."""
    return dict(PIN.findall(page))


def modules(page: str) -> dict[str, str]:
    """Return the page's code: a block by its name, and those that have none."""
    found: dict[str, str] = {}
    for name, source in BLOCK.findall(page):
        found[name or "after.py"] = found.get(name or "after.py", "") + source
    return found


def columns(page: str) -> list[str]:
    """Return what the page holds against the contract, as MODULE:NAME."""
    return COMMAND.findall(page)[0].split()


def load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def behaviour_of(factory: Any) -> dict[str, str]:
    """Return what a factory does, by what is done to it."""
    with closing(harness_for(factory)) as harness, Trial(harness) as trial:
        probe = OfRequests if is_in_request(harness) else OfBlocks
        return dict(probe(trial, harness).rows())


def markdown(names: list[str], found: list[dict[str, str]]) -> str:
    """Return a table of what was found, with what differs from the first in bold."""
    lines = [["case", *names], ["---"] * (len(names) + 1)]
    # In their order, and each once.
    rows = {question: None for each in found for question in each}
    for question in rows:
        first, *others = [each.get(question, "-") for each in found]
        bold = [cell if cell == first else f"**{cell}**" for cell in others]
        lines.append([question, first, *bold])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def made_anew(page: str) -> tuple[str, str]:
    """Return a page with its tables made anew, and the examples of what is broken."""
    names = columns(page)
    behaviour = [behaviour_of(load(name)) for name in names]
    reports: dict[str, Report] = {name: verify(load(name)) for name in names}
    changes = markdown([f"`{name}`" for name in names], behaviour)
    page = BEHAVIOUR.sub(lambda _: changes, page, count=1)
    page = PROMISES.sub(lambda _: table(reports), page, count=1)
    told = (f"{name}\n{report.examples()}" for name, report in reports.items())
    return page, "\n".join(told)


def differences(page: str) -> Iterator[str]:
    """Yield the packages that are not installed in the version that is named."""
    for name, named in pins(page).items():
        if version(name) != named:
            yield f"{name} {version(name)} is installed, and the page names {named}"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("page")
    arguments.add_argument("--write", action="store_true")
    asked = arguments.parse_args()
    path = HERE / f"{asked.page}.md"
    page = path.read_text(encoding="utf-8")
    if wrong := [*differences(page)]:
        print("\n".join(wrong))
        return 2
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        sys.path.insert(0, place)
        for name, source in modules(page).items():
            Path(name).write_text(source, encoding="utf-8")
        anew, examples = made_anew(page)
        os.chdir(HERE)
    print(examples)
    if asked.write:
        path.write_text(anew, encoding="utf-8")
        return 0
    diff = difflib.unified_diff(page.splitlines(), anew.splitlines(), lineterm="")
    print("\n".join(diff) or f"{path.name}: all of its tables are as they were")
    return int(page != anew)


if __name__ == "__main__":
    # What they log of faults that are made on purpose is of no use here.
    logging.disable(logging.CRITICAL)
    sys.exit(main())
