"""Take turns: each case of a round is measured with one variant after the other."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .results import Case, Series

V = TypeVar("V")
# What a variant does at a case: how many units a second, and how many went wrong.
Measure = Callable[[V, Case], Awaitable[tuple[float, int]]]


async def interleave(
    variants: dict[str, V], cases: Sequence[Case], rounds: int, measure: Measure[V]
) -> list[Series]:
    """Measure all variants at all cases in each round, in an order of its own.

    The variants of a case follow each other at once, so that their ratio is of the same
    moment of the machine. A first round warms up, and counts for nothing but errors.
    """
    order = random.Random(0)
    series = {(case, name): Series(case, name) for case in cases for name in variants}
    for number in range(-1, rounds):
        for case in order.sample(cases, len(cases)):
            for name in order.sample([*variants], len(variants)):
                rate, errors = await measure(variants[name], case)
                one = series[case, name]
                one.errors += errors
                if number >= 0:
                    one.rates.append(rate)
    return [*series.values()]
