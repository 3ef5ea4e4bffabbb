"""Many requests at once, on a pool with fewer connections than there are threads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from .app import ENDPOINTS, GUARDED, PATHS, WORK
from .client import Request, Tally, ask_times, connect
from .databases import Database
from .results import Burst
from .server import Pool, serving
from .variants import Variant

REQUESTS = 200
# Much shorter than the 30 seconds of SQLAlchemy, so that who waits in vain fails soon.
TIMEOUT = 2
# A request that has no answer after so many seconds counts as failed.
DEADLINE = 12
POOLS = (Pool(5, 0, TIMEOUT), Pool(5, 10, TIMEOUT), Pool(40, 0, TIMEOUT))


@dataclass(frozen=True)
class Setting:
    """One case of starvation."""

    pool: Pool
    endpoint: str
    auth: bool

    @property
    def request(self) -> tuple[str, str, int]:
        return GUARDED if self.auth else WORK["SELECT"]


def settings(pools: Sequence[Pool]) -> Iterator[Setting]:
    """Yield each pool with either kind of endpoint, with and without authentication."""
    for pool, endpoint, auth in product(pools, ENDPOINTS["sync"], (False, True)):
        yield Setting(pool, endpoint, auth)


async def burst(database: Database, variant: Variant, setting: Setting) -> Tally:
    """Send all the requests at once to a fresh server."""
    method, path, expected = setting.request
    path = f"/{variant.slug}{PATHS[setting.endpoint]}{path}"
    request = Request(method, path, expected)
    with serving(database, "sync", [variant.name], setting.pool) as server:
        # One by itself first, so that nothing is made for the first time.
        await ask_times(await connect(server.port, 1), request, 1, DEADLINE)
        connections = await connect(server.port, REQUESTS)
        return await ask_times(connections, request, REQUESTS, DEADLINE)


async def measure_starvation(
    database: Database, variants: Sequence[Variant], pools: Sequence[Pool] = POOLS
) -> list[Burst]:
    """Measure the variants that have sync sessions."""
    found: list[Burst] = []
    for setting in settings(pools):
        for variant in variants:
            if variant.sync is None:
                continue
            tally = await burst(database, variant, setting)
            found.append(
                Burst(
                    pool=str(setting.pool),
                    endpoint=setting.endpoint,
                    auth=setting.auth,
                    variant=variant.name,
                    answered=tally.right,
                    failed=tally.wrong,
                    seconds=tally.seconds,
                )
            )
    return found
