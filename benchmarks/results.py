"""What was measured: the raw figures, as they go to JSON and come back."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One kind of work, which each variant is measured at."""

    part: str
    database: str
    session: str
    work: str
    # How many requests are out at once, or 0 where there are none.
    concurrency: int


@dataclass
class Series:
    """A variant at one case: how many units of work a second, round by round."""

    case: Case
    variant: str
    rates: list[float] = field(default_factory=list)
    errors: int = 0


@dataclass(frozen=True)
class Burst:
    """A variant that gets many requests at once, on a pool that is small for them."""

    pool: str
    endpoint: str
    auth: bool
    variant: str
    answered: int
    failed: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """A variant that has so many requests out all the time, on a pool of five."""

    session: str
    concurrency: int
    variant: str
    answered: int
    errors: int
    # In seconds, of the requests that were answered; none if none was.
    p50: float | None
    p99: float | None
    # In KiB; none where the operating system does not tell.
    peak_memory: int | None


@dataclass
class Results:
    """All figures of one run, and the machine that they are from."""

    machine: dict[str, Any]
    left_out: dict[str, str]
    series: list[Series] = field(default_factory=list)
    starvation: list[Burst] = field(default_factory=list)
    growth: list[Load] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Results":
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            machine=raw["machine"],
            left_out=raw["left_out"],
            series=[
                Series(**row | {"case": Case(*row["case"])}) for row in raw["series"]
            ],
            starvation=[Burst(**row) for row in raw["starvation"]],
            growth=[Load(**row) for row in raw["growth"]],
        )


def by_case(series: Iterable[Series], part: str) -> dict[Case, dict[str, Series]]:
    """Return the series of one part of the run: those of each case, by variant."""
    found: dict[Case, dict[str, Series]] = {}
    for one in series:
        if one.case.part == part:
            found.setdefault(one.case, {})[one.variant] = one
    return found
