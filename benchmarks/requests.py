"""Requests over a real uvicorn: the throughput of each variant at each kind of work."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from .app import ENDPOINTS, PATHS, WORK
from .client import Connection, Request, Tally, ask_for, connect
from .databases import Database
from .interleaving import interleave
from .machine import all_cores
from .results import Case, Series
from .server import Pool, serving
from .variants import Variant

CONCURRENCY = (1, 50)
# Where fifty write to SQLite at once, which lets one at a time, they poll its lock with
# sleeps between. It differs tenfold from one round to the next, whoever writes.
UNTOLD = ("SQLite", "INSERT", 50)
# Twice as many as there are requests at once, as some hold a session after the answer:
# what a small pool does is in starvation.py.
POOL = Pool(100, timeout=5)
SETTLING = 0.02


class Part(NamedTuple):
    """A part of the run: how the server is started."""

    told: str
    cores: Callable[[], AbstractContextManager[None]]


PARTS = {
    "requests": Part("", nullcontext),
    "as-it-comes": Part(", server as uvicorn starts it", all_cores),
}


@dataclass
class Lane:
    """Where a variant answers, and the connections to it."""

    port: int
    slug: str
    connections: list[Connection] = field(default_factory=list)

    async def drive(self, case: Case, seconds: float) -> Tally:
        """Have it do the work of a case for so long."""
        if not self.connections:
            self.connections = await connect(self.port, max(CONCURRENCY))
        method, path, expected = WORK[case.work]
        path = f"/{self.slug}{PATHS[case.session]}{path}"
        request = Request(method, path, expected)
        # Where many are out at once, a slice has a beginning and an end that are not
        # like the rest of it.
        if case.concurrency > 1:
            seconds *= 4
        return await ask_for(self.connections[: case.concurrency], request, seconds)


def cases(database: str, session: str, part: str = "requests") -> list[Case]:
    """Return the cases of one kind of session."""
    return [
        Case(part, database, endpoint, work, concurrency)
        for endpoint in ENDPOINTS[session]
        for work in WORK
        for concurrency in CONCURRENCY
        if (database, work, concurrency) != UNTOLD
    ]


async def drive_lanes(
    lanes: dict[str, Lane], cases: Sequence[Case], rounds: int, seconds: float
) -> list[Series]:
    """Interleave slices of so many seconds."""

    async def measure(lane: Lane, case: Case) -> tuple[float, int]:
        tally = await lane.drive(case, seconds)
        # Who commits after the answer is not to do so in the time of the next.
        await asyncio.sleep(SETTLING)
        return tally.rate, tally.wrong

    try:
        return await interleave(lanes, cases, rounds, measure)
    finally:
        for lane in lanes.values():
            for connection in lane.connections:
                connection.close()


async def measure_requests(
    database: Database,
    variants: Sequence[Variant],
    rounds: int,
    seconds: float,
    part: str,
) -> list[Series]:
    """Measure the variants on one database, with either kind of session."""
    series: list[Series] = []
    for session in ENDPOINTS:
        having = [variant for variant in variants if variant.of(session)]
        names = [variant.name for variant in having]
        with PARTS[part].cores(), serving(database, session, names, POOL) as server:
            lanes = {
                variant.name: Lane(server.port, variant.slug) for variant in having
            }
            found = cases(database.name, session, part)
            series += await drive_lanes(lanes, found, rounds, seconds)
    return series
