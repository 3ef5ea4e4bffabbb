"""What `safesession check` finds in source files, and what it says nothing of."""

import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from safesession.lint._check import check
from safesession.lint._settings import Settings

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
CHECKED = ROOT / "tests" / "checked"
FILES = [*CHECKED.glob("faulty/*.py"), *CHECKED.glob("sound/*.py")]
EXPECTED = re.compile(r"# finds (SAFE\d{3})$")


def expected(path: Path) -> Iterator[tuple[str, int, str]]:
    """Iterate over the findings that the comments of files announce."""
    for file in [path] if path.is_file() else path.rglob("*.py"):
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if found := EXPECTED.search(line):
                yield file.name, number, found[1]


def found(*paths: Path) -> list[tuple[str, int, str]]:
    report = check(paths, Settings())
    assert not report.unreadable
    return [(Path(one.path).name, one.line, one.code) for one in report.findings]


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_shapes_of_real_projects(path: Path) -> None:
    """Each fault is found where it is, and nothing else is."""
    announced = sorted(expected(path))

    assert announced == found(path)
    assert (path.parent.name == "faulty") == bool(announced)


def test_names_are_followed_across_files() -> None:
    """A generator is found where it is imported from, through others too."""
    project = CHECKED / "project"

    assert sorted(expected(project)) == sorted(found(project))


def test_own_code_is_sound() -> None:
    """Only what is faulty on purpose is found in the examples and in this project."""
    places = ["examples", "src", "benchmarks", "noxfile.py", "tests"]
    paths = [path for name in places for path in python_files(ROOT / name)]

    assert sorted(found(*paths)) == [
        ("factories.py", 27, "SAFE001"),
        ("sessions.py", 72, "SAFE001"),
        ("test_verify.py", 151, "SAFE004"),
    ]


def python_files(place: Path) -> list[Path]:
    files = [place] if place.is_file() else [*place.rglob("*.py")]
    return [file for file in files if not file.is_relative_to(CHECKED)]


def test_standard_library() -> None:
    """Whatever Python can parse is checked, and nothing is found where none is meant."""
    directory = Path(sysconfig.get_path("stdlib"))
    files = [
        file
        for file in sorted(directory.rglob("*.py"))
        if not {"site-packages", "lib2to3", "tokenizedata"} & {*file.parts}
    ]
    sample = random.Random(0).sample(files, 200)
    odd = [
        file
        for name in ("test_grammar", "test_asyncgen", "test_contextlib", "test_patma")
        for file in directory.glob(f"test/{name}.py")
    ]

    report = check([*sample, *odd], Settings())

    assert report.findings == []
    assert report.files > 190
