"""Is safesession as it stands slower than it was? Two versions of it, in one run."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from subprocess import CalledProcessError, run
from tempfile import TemporaryDirectory

from . import requests, scopes
from .app import ENDPOINTS
from .databases import ROOT, Database, sqlite
from .machine import git
from .report import show_comparison
from .requests import Lane, drive_lanes
from .results import Case, Series
from .server import serving
from .variants import SAFESESSION, VARIANTS

NOW = "as it stands"
# Each version has new processes so often, as one may be lucky in where its memory is.
STARTS = 3
RULE = (
    "exits with 1 where the median of a case is below 0.95 of the earlier version "
    "and its upper quartile below 1, or where a request has failed"
)


class NoSuchVersion(Exception):
    """Git does not know it."""


async def compare(ref: str, rounds: int, seconds: float) -> bool:
    """Measure both, and tell whether it is nowhere slower by more than noise."""
    ref = ref or git("merge-base", "HEAD", "main") or ""
    commit = git("rev-parse", "--short", f"{ref}^{{commit}}") if ref else None
    if commit is None:
        raise NoSuchVersion(f"There is no version {ref!r} here to compare with.")
    with TemporaryDirectory() as directory, sqlite() as database:
        unpack(commit, Path(directory))
        sources = {commit: Path(directory) / "src", NOW: ROOT / "src"}
        series: list[Series] = []
        for _ in range(STARTS):
            # Batches are short, so that there may be many.
            series += await scopes.compare_scopes(
                database, sources, rounds * 5, seconds / 20
            )
            for session in ENDPOINTS:
                series += await compare_requests(
                    database, session, sources, rounds, seconds
                )
    return not show_comparison(joined(series), commit, NOW)


def unpack(commit: str, directory: Path) -> None:
    """Put what was in `src` at a commit into a directory."""
    try:
        archive = run(
            ["git", "-C", str(ROOT), "archive", commit, "src"],
            check=True,
            capture_output=True,
        ).stdout
    except CalledProcessError as error:
        raise NoSuchVersion(error.stderr.decode()) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")


async def compare_requests(
    database: Database,
    session: str,
    sources: dict[str, Path],
    rounds: int,
    seconds: float,
) -> list[Series]:
    """Measure requests to a server of each version."""
    (before, now) = sources
    (slug,) = (variant.slug for variant in VARIANTS if variant.name == SAFESESSION)
    wanted = [SAFESESSION]
    with (
        serving(database, session, wanted, requests.POOL, sources[before]) as earlier,
        serving(database, session, wanted, requests.POOL, sources[now]) as current,
    ):
        lanes = {before: Lane(earlier.port, slug), now: Lane(current.port, slug)}
        found = requests.cases(database.name, session)
        return await drive_lanes(lanes, found, rounds, seconds)


def joined(series: Iterable[Series]) -> list[Series]:
    """Return the series of several starts as one for each case and version."""
    found: dict[tuple[Case, str], Series] = {}
    for one in series:
        whole = found.setdefault((one.case, one.variant), Series(one.case, one.variant))
        whole.rates += one.rates
        whole.errors += one.errors
    return [*found.values()]
