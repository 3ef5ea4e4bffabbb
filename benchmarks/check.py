"""Refuse to measure a variant that answers wrongly: without a commit it is fast."""

from collections.abc import Sequence
from typing import Any

import httpx
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .app import ENDPOINTS, GUARDED, PATHS, WORK, of
from .databases import Database, Order
from .variants import Variant


class WrongAnswer(Exception):
    """A variant did not answer as the others do, or did not leave what it should."""


async def require_right_answers(
    database: Database, variants: Sequence[Variant]
) -> None:
    """Ask each endpoint of each variant once, and look at what is in the database."""
    for session in ENDPOINTS:
        engine = database.engine_for(session, pool_size=2)
        try:
            for variant in variants:
                if variant.of(session):
                    await check(variant, session, engine, database)
        finally:
            closing = engine.dispose()
            if closing is not None:
                await closing


async def check(
    variant: Variant, session: str, engine: Any, database: Database
) -> None:
    """Raise WrongAnswer where a variant does not do its work."""
    # It returns when the app has ended, and not with the answer: some commit later.
    transport = httpx.ASGITransport(of(variant, session, engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for endpoint in ENDPOINTS[session]:
            asked = [*WORK.items()]
            if session == "sync":
                asked.append(("guarded", GUARDED))
            for work, (method, path, expected) in asked:
                before = orders(database)
                answer = await client.request(method, PATHS[endpoint] + path)
                found = {
                    "status": answer.status_code,
                    "rows written": orders(database) - before,
                    "item": answer.json() if expected == 200 else None,
                    "connections out": engine.pool.checkedout(),
                }
                right = {
                    "status": expected,
                    "rows written": int(work == "INSERT"),
                    "item": {"id": 1, "name": "anvil"} if expected == 200 else None,
                    "connections out": 0,
                }
                if found != right:
                    raise WrongAnswer(
                        f"{variant.name}, {endpoint}, {work} on {database.name}: "
                        f"{found}, where {right} is right."
                    )


def orders(database: Database) -> int:
    """Return how many orders have been committed."""
    engine = database.engine()
    with Session(engine) as session:
        count = session.scalar(select(func.count()).select_from(Order))
    engine.dispose()
    return count or 0
