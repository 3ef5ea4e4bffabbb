"""What is asked of a release: faults put in on purpose are told."""

import hashlib
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from scripts import releasing
from scripts.releasing import NotAsItShouldBe

pytestmark = pytest.mark.once

VERSION = "1.2.0"
PYPROJECT = """\
[project]
version = "{version}"

[tool.hatch.build.targets.sdist]
include = ["/CHANGELOG.md", "/src"]
"""
CHANGELOG = "# Changelog\n\n## {heading}\n\n- Some.\n\n## 1.1.0 - 2026-11-02\n"
IN_WHEEL = {
    "safesession/__init__.py",
    "safesession/testing/plugin.py",
    "safesession/py.typed",
    "safesession-1.2.0.dist-info/METADATA",
    "safesession-1.2.0.dist-info/RECORD",
    "safesession-1.2.0.dist-info/WHEEL",
    "safesession-1.2.0.dist-info/entry_points.txt",
    "safesession-1.2.0.dist-info/licenses/LICENSE",
}
IN_SDIST = {
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
    "src/safesession/__init__.py",
    "src/safesession/py.typed",
    "src/safesession/testing/plugin.py",
}


class Project:
    """A project in a directory with git, whose version is ready to be released."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("pyproject.toml", PYPROJECT.format(version=VERSION))
        self.write("CHANGELOG.md", CHANGELOG.format(heading=f"{VERSION} - 2026-12-01"))
        self.write(".gitignore", "__pycache__/\n")
        self.write("src/safesession/__init__.py")
        self.write("src/safesession/py.typed")
        self.write("src/safesession/testing/plugin.py")
        self.git("init", "--quiet")
        self.commit()

    def write(self, name: str, text: str = "") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A change")

    def git(self, *arguments: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(self.root), *who, *arguments], check=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that is ready, in place of this one."""
    root = tmp_path / "project"
    monkeypatch.setattr(releasing, "ROOT", root)
    return Project(root)


def check(place: Path, wheel: Iterable[str], sdist: Iterable[str]) -> None:
    """Check a wheel and an sdist with these names in them."""
    place = place / "dist"
    place.mkdir()
    wheel_path = place / f"safesession-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel_path, "w") as archive:
        for name in wheel:
            archive.writestr(name, "")
    sdist_path = place / f"safesession-{VERSION}.tar.gz"
    with tarfile.open(sdist_path, "w:gz") as archive:
        for name in sdist:
            archive.addfile(tarfile.TarInfo(f"safesession-{VERSION}/{name}"))
    releasing.check_contents(str(sdist_path), str(wheel_path))


def test_contents_as_they_should_be(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The modules, the mark of types and the metadata; what git has, in the sdist."""
    project.write("src/safesession/__pycache__/scope.pyc")

    check(tmp_path, IN_WHEEL, IN_SDIST)

    assert "1.2.0-py3-none-any.whl holds what it should: 8 files" in (
        told := capsys.readouterr().out
    )
    assert "1.2.0.tar.gz holds what it should: 9 files" in told


@pytest.mark.parametrize("name", ["safesession/notes.txt", "tests/test_scope.py"])
def test_more_in_the_wheel(project: Project, tmp_path: Path, name: str) -> None:
    """A file in src that is no module does not belong there, nor does anything else."""
    project.write("src/safesession/notes.txt")

    with pytest.raises(NotAsItShouldBe, match=f"whl holds more than it .*: {name}"):
        check(tmp_path, IN_WHEEL | {name}, IN_SDIST)


@pytest.mark.parametrize("name", sorted(IN_WHEEL))
def test_less_in_the_wheel(project: Project, tmp_path: Path, name: str) -> None:
    """Nothing of what should be there may be absent."""
    with pytest.raises(NotAsItShouldBe, match=r"whl lacks: "):
        check(tmp_path, IN_WHEEL - {name}, IN_SDIST)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_twice_in_the_wheel(project: Project, tmp_path: Path) -> None:
    """A file that is packed twice is told: which one is taken depends on the tool."""
    twice = [*IN_WHEEL, "safesession/py.typed"]

    with pytest.raises(NotAsItShouldBe, match=r"holds twice: safesession/py.typed$"):
        check(tmp_path, twice, IN_SDIST)


def test_the_sdist_is_held_to_what_git_has(project: Project, tmp_path: Path) -> None:
    """What git ignores, or pyproject.toml does not include, is not in the sdist."""
    cached = "src/safesession/__pycache__/scope.pyc"
    project.write(cached)
    project.write("notes.txt")

    with pytest.raises(
        NotAsItShouldBe, match=f"more than it should: notes.txt, {cached}"
    ):
        check(tmp_path, IN_WHEEL, IN_SDIST | {cached, "notes.txt"})


def test_less_in_the_sdist(project: Project, tmp_path: Path) -> None:
    """A file that is about to be committed belongs there, and one deleted does not."""
    project.write("src/safesession/new.py")
    (project.root / "CHANGELOG.md").unlink()
    wheel = IN_WHEEL | {"safesession/new.py"}

    with pytest.raises(NotAsItShouldBe, match=r"gz lacks: src/safesession/new.py$"):
        check(tmp_path, wheel, IN_SDIST - {"CHANGELOG.md"})


def test_built_twice(tmp_path: Path) -> None:
    """Each file is there both times, and the same to the byte."""
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
        (place / "a.whl").write_text("the same", encoding="utf-8")
    releasing.check_same(str(first), str(second))
    (first / "b.tar.gz").write_text("with a time", encoding="utf-8")
    (second / "c.tar.gz").write_text("with a time", encoding="utf-8")
    (second / "a.whl").write_text("another", encoding="utf-8")

    with pytest.raises(NotAsItShouldBe, match=r"differ: a.whl, b.tar.gz, c.tar.gz$"):
        releasing.check_same(str(first), str(second))


def test_ready(project: Project) -> None:
    """A version whose heading has a date, in a tree that is committed, may go out."""
    releasing.check_ready()

    project.git("tag", f"v{VERSION}")
    releasing.check_ready()


@pytest.mark.parametrize(
    "version, heading, told",
    [
        ("1.2.0.dev0", "1.2.0 - 2026-12-01", "is 1.2.0.dev0, and one that is"),
        ("1.2", "1.2 - 2026-12-01", "is 1.2, and one that is released is such"),
        ("1.2.0", "Unreleased", "'Unreleased', and the version is 1.2.0. Write '## 1."),
        ("1.2.0", "1.3.0 - 2026-12-01", "is '1.3.0 - 2026-12-01', and the version is"),
        ("1.2.0", "1.2.0", "is '1.2.0', and the version is 1.2.0"),
        ("1.1.0", "1.2.0 - 2026-12-01", "and the version is 1.1.0"),
    ],
)
def test_the_version_is_that_of_the_newest_heading(
    project: Project, version: str, heading: str, told: str
) -> None:
    """The changelog leads: what is not told there is not released."""
    project.write("pyproject.toml", PYPROJECT.format(version=version))
    project.write("CHANGELOG.md", CHANGELOG.format(heading=heading))
    project.commit()

    (reason,) = releasing.reasons_not_to_release(project.root)

    assert told in reason


def test_all_reasons_are_told_at_once(project: Project) -> None:
    """A tree with changes, and a tag that is somewhere else, and whatever else."""
    project.git("tag", f"v{VERSION}")
    project.commit()
    project.write("CHANGELOG.md", "# Changelog\n")
    project.write("new.py")

    with pytest.raises(NotAsItShouldBe) as raised:
        releasing.check_ready()

    assert (
        "Not to be released:\n"
        "- The newest heading of CHANGELOG.md is 'none', and the version is 1.2.0. "
        "Write '## 1.2.0 - ' and the date in place of it.\n"
        "- The tree is not what is committed:  M CHANGELOG.md, ?? new.py. Commit it.\n"
        "- The tag v1.2.0 is on another commit. Take the next version."
    ) == str(raised.value)


def test_the_first_example(project: Project, tmp_path: Path) -> None:
    """The Python blocks up to the first that asserts, once without that one."""
    page = "A\n```python\na = 1\n```\n```console\n$ ls\n```\n```python\nb = 2\n```\n"
    asserting = "```python\nassert a\n```\n```python\nc = 3\n```\n"
    project.write("README.md", page + asserting)

    releasing.write_example(str(tmp_path))

    service, asked = (tmp_path / name for name in ("service.py", "asked.py"))
    assert "a = 1\n\nb = 2\n" == service.read_text(encoding="utf-8")
    assert "a = 1\n\nb = 2\n\nassert a\n" == asked.read_text(encoding="utf-8")
    with pytest.raises(NotAsItShouldBe, match="has no example that asserts"):
        releasing.first_example(page)


def test_checksums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are those that sha256sum checks, and can be written again."""
    (tmp_path / "a.whl").write_text("a", encoding="utf-8")

    releasing.write_checksums(str(tmp_path))
    releasing.write_checksums(str(tmp_path))

    written = (tmp_path / "SHA256SUMS").read_text(encoding="utf-8")
    assert f"{hashlib.sha256(b'a').hexdigest()}  a.whl\n" == written
    assert written * 2 == capsys.readouterr().out
