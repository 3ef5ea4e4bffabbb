"""Ratios of what was measured in the same round, their median and their spread."""

from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple

# A change is a regression where its median is below this, and its upper quartile
# below 1.
REGRESSION = 0.95


class Spread(NamedTuple):
    """A median, and the quartiles on both sides of it."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratios(rates: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the ratio of each round in which the baseline got anything done."""
    pairs = zip(rates, baseline, strict=True)
    return [rate / reference for rate, reference in pairs if reference]


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles, of which half of the values are within."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(low, median(values), high)


def speed(rates: Sequence[float], baseline: Sequence[float]) -> Spread | None:
    """Return how many times the work of the baseline is done in the same time."""
    found = ratios(rates, baseline)
    return spread(found) if found else None


def cost(rates: Sequence[float], baseline: Sequence[float]) -> Spread | None:
    """Return how many times the time of the baseline the same work takes."""
    return speed(baseline, rates)


def is_regression(found: Spread) -> bool:
    """Tell whether a speed beside an earlier version is lower by more than noise."""
    return found.median < REGRESSION and found.high < 1


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the value that so many percent of the values do not exceed."""
    if not values:
        return None
    ordered = sorted(values)
    # The nearest rank: rounded up, in whole numbers.
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]
