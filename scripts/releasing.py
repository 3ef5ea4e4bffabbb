"""What is asked of a release. `nox -s build` and `nox -s release` ask it.

`python scripts/releasing.py contents SDIST WHEEL`, and the like: see `COMMANDS`.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# What hatchling adds, or takes whatever it is told.
OF_EACH_SDIST = {".gitignore", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
OF_EACH_WHEEL = {
    "METADATA",
    "RECORD",
    "WHEEL",
    "entry_points.txt",
    "licenses/LICENSE",
}


class NotAsItShouldBe(Exception):
    """Something is not as a release has to be; the message says what."""


def check_contents(sdist: str, wheel: str) -> None:
    """Require that an sdist and a wheel hold what they should, and no more."""
    _compare(wheel, _names_in_wheel(Path(wheel)), expected_in_wheel(ROOT))
    _compare(sdist, _names_in_sdist(Path(sdist)), expected_in_sdist(ROOT))


def expected_in_wheel(root: Path) -> set[str]:
    """Return the modules below src, what tells that they are typed, and metadata."""
    source = root / "src"
    modules = {*source.glob("safesession/**/*.py"), source / "safesession/py.typed"}
    return OF_EACH_WHEEL | {path.relative_to(source).as_posix() for path in modules}


def expected_in_sdist(root: Path) -> set[str]:
    """Return what git has, or is about to, of what pyproject.toml includes."""
    hatch = _pyproject(root)["tool"]["hatch"]["build"]["targets"]["sdist"]
    included = [name.removeprefix("/") for name in hatch["include"]]
    listed = ("ls-files", "--cached", "--others", "--exclude-standard", "--", *included)
    files = _git(root, *listed).splitlines()
    return OF_EACH_SDIST | {name for name in files if (root / name).exists()}


def check_same(first: str, second: str) -> None:
    """Require that two directories hold the same files, to the byte."""
    one, other = (dict(_checksums(Path(place))) for place in (first, second))
    differing = sorted(
        name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
    )
    if differing:
        raise NotAsItShouldBe(f"Built twice, these differ: {', '.join(differing)}")
    print(f"Built twice, and the same to the byte: {', '.join(sorted(one))}")


def check_ready() -> None:
    """Require that what is here is a version that may be released."""
    reasons = [*reasons_not_to_release(ROOT)]
    if reasons:
        raise NotAsItShouldBe("Not to be released:\n- " + "\n- ".join(reasons))


def reasons_not_to_release(root: Path) -> Iterator[str]:
    """Tell each thing that is in the way of a release."""
    version = _pyproject(root)["project"]["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", version):
        yield (
            f"The version in pyproject.toml is {version}, and one that is released is "
            "such as 1.2.0 or 1.2.0rc1. Write the one that is to be released."
        )
    version = re.sub(r"\.dev\d+$", "", version)
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (.*)$", changelog, re.MULTILINE)
    heading = newest[1] if newest else "none"
    if not re.fullmatch(rf"\[?{re.escape(version)}\]? - \d{{4}}-\d\d-\d\d", heading):
        yield (
            f"The newest heading of CHANGELOG.md is {heading!r}, and the version is "
            f"{version}. Write '## {version} - ' and the date in place of it."
        )
    changed = _git(root, "status", "--porcelain").splitlines()
    if changed:
        yield f"The tree is not what is committed: {', '.join(changed)}. Commit it."
    tagged = _git(root, "tag", "--list", f"v{version}").strip()
    if tagged and tagged not in _git(root, "tag", "--points-at", "HEAD").split():
        yield f"The tag {tagged} is on another commit. Take the next version."


def write_example(place: str) -> None:
    """Write README's first example into a directory, without and with its asserts."""
    blocks = first_example((ROOT / "README.md").read_text(encoding="utf-8"))
    for name, count in (("service.py", -1), ("asked.py", len(blocks))):
        path = Path(place, name)
        path.write_text("\n".join(blocks[:count]), encoding="utf-8")


def first_example(page: str) -> list[str]:
    """Return the Python blocks of a page, up to the first that asserts something."""
    example = []
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        example.append(block)
        if re.search(r"^assert ", block, re.MULTILINE):
            return example
    raise NotAsItShouldBe("README.md has no example that asserts what comes of it.")


def write_checksums(place: str) -> None:
    """Write and print the checksums of what is in a directory."""
    listed = Path(place, "SHA256SUMS")
    listed.unlink(missing_ok=True)
    text = "".join(f"{digest}  {name}\n" for name, digest in _checksums(Path(place)))
    listed.write_text(text, encoding="utf-8")
    print(text, end="")


COMMANDS: dict[str, Callable[..., None]] = {
    "contents": check_contents,
    "same": check_same,
    "ready": check_ready,
    "example": write_example,
    "checksums": write_checksums,
}


def _compare(archive: str, found: list[str], expected: set[str]) -> None:
    for what, names in (
        ("holds more than it should", {*found} - expected),
        ("lacks", expected - {*found}),
        ("holds twice", {name for name in found if found.count(name) > 1}),
    ):
        if names:
            told = ", ".join(sorted(names))
            raise NotAsItShouldBe(f"{Path(archive).name} {what}: {told}")
    print(f"{Path(archive).name} holds what it should: {len(found)} files")


def _names_in_wheel(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [
            re.sub(r"^safesession-[^/]*\.dist-info/", "", name)
            for name in archive.namelist()
        ]


def _names_in_sdist(sdist: Path) -> list[str]:
    with tarfile.open(sdist) as archive:
        return [
            name.removeprefix(sdist.name.removesuffix(".tar.gz") + "/")
            for name in archive.getnames()
        ]


def _checksums(place: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(place.iterdir()):
        yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def _pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), "-c", "core.quotePath=false", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](*sys.argv[2:])
    except NotAsItShouldBe as error:
        sys.exit(f"{Path(__file__).name}: {error}")
