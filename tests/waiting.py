"""Apps whose requests wait for sessions, and many requests at once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

from anyio import fail_after, wait_all_tasks_blocked
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from apps import client, get
from models import Note

MakeEngine = Callable[..., Engine]


class Count(BaseModel):
    notes: int


def count(session: Session) -> Count:
    return Count(notes=session.scalar(select(func.count(Note.id))) or 0)


async def answers(app: FastAPI, paths: list[str]) -> Counter[int]:
    """Return how many requests, all made at once, had which status."""
    async with client(app) as http:
        with fail_after(30):
            responses = await asyncio.gather(*map(http.get, paths))
    return Counter(response.status_code for response in responses)


class Door:
    """An app whose requests wait in their endpoints, each until it is released."""

    def __init__(self, get_session: Any) -> None:
        self.app = FastAPI()
        self.inside: list[int] = []
        self.release: dict[int, asyncio.Event] = {}

        @self.app.get("/{number}")
        async def wait(
            number: int, session: Annotated[Any, Depends(get_session)]
        ) -> None:
            self.inside.append(number)
            self.release[number] = asyncio.Event()
            await self.release[number].wait()

    async def ask(self, *numbers: int) -> list["asyncio.Task[Any]"]:
        """Begin requests, and return them when none can go further."""
        tasks = []
        for number in numbers:
            tasks.append(asyncio.create_task(get(self.app, f"/{number}")))
            await wait_all_tasks_blocked()
        return tasks

    async def let_go(self, number: int) -> None:
        self.release[number].set()
        await wait_all_tasks_blocked()
