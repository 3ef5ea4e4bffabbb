"""Tasks that somebody has left, ended."""

import asyncio
from collections.abc import Iterable
from typing import Any


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them until they have ended, as often as it takes.

    What waits in a `finally` for its own end goes on to do so when it is cancelled.
    """
    going_on = set(tasks)
    while going_on:
        for task in going_on:
            task.cancel()
        _, going_on = await asyncio.wait(going_on, timeout=0)
