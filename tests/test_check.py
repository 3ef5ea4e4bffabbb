"""What `safesession check` finds in source files, and what it says nothing of."""

import ast
import copy
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safesession.__main__ import main
from safesession.lint._check import check
from safesession.lint._settings import Settings

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
CHECKED = ROOT / "tests" / "checked"
FILES = sorted([*CHECKED.glob("faulty/*.py"), *CHECKED.glob("sound/*.py")])
TEXTS = [path.read_text(encoding="utf-8") for path in FILES]
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


def test_what_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finding says what goes wrong, and what to write; reviewed as it stands."""
    monkeypatch.chdir(CHECKED)

    main(["check", "faulty", "project"])

    assert Path("told.txt").read_text(encoding="utf-8") == capsys.readouterr().out


def test_own_code_is_sound() -> None:
    """Only what is faulty on purpose is found in the examples and in this project."""
    places = ["examples", "src", "benchmarks", "noxfile.py", "tests"]
    paths = [path for name in places for path in python_files(ROOT / name)]

    assert sorted((file, code) for file, _, code in found(*paths)) == [
        # It is for the type checkers, and not run.
        ("api.py", "SAFE008"),
        ("factories.py", "SAFE001"),
        ("sessions.py", "SAFE001"),
        ("test_verify_found.py", "SAFE004"),
        ("test_verify_heard.py", "SAFE001"),
    ]


def python_files(place: Path) -> list[Path]:
    files = [place] if place.is_file() else [*place.rglob("*.py")]
    return [file for file in files if not file.is_relative_to(CHECKED)]


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    """Names that go round in a circle, or may mean several things, mean nothing."""
    (tmp_path / "a.py").write_text("from b import get_session, other\n")
    (tmp_path / "b.py").write_text("from a import get_session\nfrom .. import other")
    (tmp_path / "c.py").write_text(
        "from a import get_session, other\n"
        "from fastapi import Depends\n"
        "from ......................... import far\n"
        "[next(get_session()), Depends(other), Depends(far), Depends(1), Depends()]"
    )

    assert found(tmp_path) == []


def test_a_name_is_looked_up_where_it_is_used(tmp_path: Path) -> None:
    """A function's own names come first, and one that is bound twice means nothing."""
    path = tmp_path / "scopes.py"
    path.write_text(
        """
from sqlalchemy.orm import Session

def get_session():
    with Session(engine) as session:
        yield session

def get_either():
    with Session(engine) as session:
        yield session

if engine:
    get_either = None

def shadowed(get_session):
    next(get_session())

def inner():
    def get_session():
        return iter([1])
    next(get_session())

def own():
    def get_own():
        with Session(engine) as session:
            yield session
    def innermost():
        next(get_own())

next(get_either())
next(get_session())
""".lstrip()
    )

    assert [line for _, line, _ in found(path)] == [27, 30]


@given(st.data())
def test_no_edit_of_a_file_crashes_the_check(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Statements that are moved, repeated or dropped are checked, whatever they say."""
    tree = ast.parse(data.draw(st.sampled_from(TEXTS)))
    blocks = [
        block
        for node in ast.walk(tree)
        for field in ("body", "orelse", "finalbody")
        if isinstance(block := getattr(node, field, None), list)
    ]
    statements = [one for block in blocks for one in block]
    for _ in range(data.draw(st.integers(1, 6))):
        block = data.draw(st.sampled_from(blocks))
        block.insert(
            data.draw(st.integers(0, len(block))),
            copy.deepcopy(data.draw(st.sampled_from(statements))),
        )
        if len(block) > 1 and data.draw(st.booleans()):
            del block[data.draw(st.integers(0, len(block) - 1))]
    path = tmp_path_factory.getbasetemp() / "edited.py"
    path.write_text(ast.unparse(tree))

    report = check([path], Settings())

    for one in report.findings:
        assert report.files == 1
        assert 1 <= one.line <= one.end_line
        assert one.message.endswith(".")


def test_standard_library() -> None:
    """Whatever Python parses is checked, and nothing is found that is not meant."""
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
