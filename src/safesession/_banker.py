"""The banker's algorithm: is there a way for everybody to get what they may ask for?

A request does not say beforehand for how many sessions it will ask. Where each has one
and waits for another, they wait for ever; so a slot is handed out only if all can still
end, one after another.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Stock(NamedTuple):
    """What there is of one limit, and for whom."""

    limit: object
    free: int
    # How many a request takes at most.
    most: int
    # Each of these takes one for a request, if it takes any.
    takers: set[Any]


def all_can_end(requests: Iterable[Mapping[Any, object]], stocks: list[Stock]) -> bool:
    """Tell whether all requests can end, given what each taker has for them already."""
    # Of the others there is enough for whoever asks.
    scarce = [each for each in stocks if each.free < min(each.most, len(each.takers))]
    free = {each.limit: each.free for each in scarce}
    left = list(requests) if scarce else []
    while left:
        waiting: list[Mapping[Any, object]] = []
        ended: list[Mapping[Any, object]] = []
        for slots in left:
            can_end = all(_may_need(slots, each) <= free[each.limit] for each in scarce)
            (ended if can_end else waiting).append(slots)
        if not ended:
            return False
        for slots in ended:
            for limit in slots.values():
                if limit in free:
                    free[limit] += 1
        left = waiting
    return True


def held(slots: Mapping[Any, object], limit: object) -> int:
    """Return how many of a request's slots are of one limit."""
    return list(slots.values()).count(limit)


def _may_need(slots: Mapping[Any, object], stock: Stock) -> int:
    more = stock.most - held(slots, stock.limit)
    return min(more, len(stock.takers - slots.keys()))
