"""Reads files, and holds them against the rules."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from ._background import check_background
from ._cancelled import check_cancelled
from ._endpoints import check_endpoints
from ._exits import check_exits
from ._project import Project
from ._rule import Finding
from ._settings import Settings
from ._silence import is_silenced, silences_of
from ._source import Source, Unreadable
from ._streams import check_streams
from ._uses import check_uses

SKIPPED = {
    ".git",
    ".nox",
    ".tox",
    ".venv",
    "__pycache__",
    "build",
    "node_modules",
    "site-packages",
    "venv",
}
_CHECKS = (
    check_exits,
    check_cancelled,
    check_uses,
    check_endpoints,
    check_background,
    check_streams,
)


@dataclass
class Report:
    """What was found, and what could not be read."""

    findings: list[Finding] = field(default_factory=list[Finding])
    unreadable: list[str] = field(default_factory=list[str])
    files: int = 0


def check(paths: Sequence[Path], settings: Settings) -> Report:
    """Check files, and all Python files in directories."""
    report = Report()
    sources: list[Source] = []
    for path in _python_files(paths, settings):
        try:
            sources.append(Source.read(path))
        except Unreadable as error:
            report.unreadable.append(str(error))
    report.files = len(sources)
    silences = {source.path.as_posix(): silences_of(source) for source in sources}
    project = Project(sources)
    found = chain.from_iterable(rules(project) for rules in _CHECKS)
    report.findings = _one_for_a_line(
        finding
        for finding in found
        if finding.code in settings.codes
        and not is_silenced(finding, silences[finding.path])
    )
    return report


def _one_for_a_line(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in order, the first of each line and rule."""
    firsts: dict[tuple[str, int, str], Finding] = {}
    for one in sorted(findings):
        firsts.setdefault((one.path, one.line, one.code), one)
    return [*firsts.values()]


def _python_files(paths: Iterable[Path], settings: Settings) -> Iterator[Path]:
    """Iterate over the files to read, each once; those that are named in any case."""
    seen: set[Path] = set()
    for path in paths:
        below = _below(path, settings) if path.is_dir() else [path]
        for file in below:
            if (resolved := file.resolve()) not in seen:
                seen.add(resolved)
                yield file


def _below(directory: Path, settings: Settings) -> Iterator[Path]:
    for place, directories, files in os.walk(directory):
        # A virtual environment, whatever its name; but not the directory itself.
        if "pyvenv.cfg" in files and Path(place) != directory:
            directories.clear()
            continue
        directories[:] = sorted(
            name
            for name in directories
            if name not in SKIPPED and not settings.is_excluded(Path(place, name))
        )
        for name in sorted(files):
            path = Path(place, name)
            if name.endswith(".py") and not settings.is_excluded(path):
                yield path
