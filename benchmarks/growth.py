"""From ten to a thousand requests out at once, on a pool of five."""

from collections.abc import Sequence

from .app import ENDPOINTS, PATHS, WORK
from .client import Request, ask_times, connect
from .databases import Database
from .ratios import percentile
from .results import Load
from .server import Pool, serving
from .variants import Variant

LEVELS = (10, 50, 100, 250, 500, 1000)
REQUESTS = 2000
# A request that has no answer after so many seconds counts as failed.
DEADLINE = 10
POOL = Pool(5)
# Where a session waits for a thread, or for the event loop.
GROWING = {"sync": "sync session in def", "async": "async session"}


async def measure_growth(
    database: Database,
    variants: Sequence[Variant],
    levels: Sequence[int] = LEVELS,
    requests: int = REQUESTS,
) -> list[Load]:
    """Measure the variants, each level on a server of its own for its peak memory."""
    return [
        await load(database, session, variant, level, requests)
        for session in ENDPOINTS
        for level in levels
        for variant in variants
        if variant.of(session)
    ]


async def load(
    database: Database, session: str, variant: Variant, concurrency: int, requests: int
) -> Load:
    """Keep so many requests out until all of them were sent."""
    method, path, expected = WORK["SELECT"]
    path = f"/{variant.slug}{PATHS[GROWING[session]]}{path}"
    request = Request(method, path, expected)
    with serving(database, session, [variant.name], POOL) as server:
        await ask_times(await connect(server.port, 1), request, 1, DEADLINE)
        connections = await connect(server.port, concurrency)
        tally = await ask_times(connections, request, requests, DEADLINE)
        return Load(
            session=GROWING[session],
            concurrency=concurrency,
            variant=variant.name,
            answered=tally.right,
            errors=tally.wrong,
            p50=percentile(tally.latencies, 50),
            p99=percentile(tally.latencies, 99),
            peak_memory=server.peak_memory(),
        )
