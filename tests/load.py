"""A load of requests that each write a numbered row."""

import asyncio
import itertools
from collections import Counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from apps import client
from safesession import OutcomeUnknown
from safesession.fastapi import add_exception_handlers, async_session_dependency
from safesession.retry import RetryMiddleware, async_run_in_session, run_in_session

# Without a key, for what is done twice to be seen.
TABLE = text("CREATE TABLE numbered (number int)")
INSERT = text("INSERT INTO numbered VALUES (:number)")
UNKNOWN = 504


class Load:
    """Clients that write one numbered row after another, and what they are told."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._numbers = itertools.count()
        self._told = asyncio.Condition()
        self._ending = False
        self.statuses: dict[int, int] = {}

    async def until(self, more: int) -> None:
        """Wait until so many more were told that their row is written."""
        async with self._told:
            wanted = self._written() + more
            await asyncio.wait_for(
                self._told.wait_for(lambda: self._written() >= wanted), 30
            )

    def _written(self) -> int:
        return Counter(self.statuses.values())[200]

    async def _ask(self) -> None:
        async with client(self._app) as http:
            while not self._ending:
                number = next(self._numbers)
                response = await http.post(f"/{number}")
                async with self._told:
                    self.statuses[number] = response.status_code
                    self._told.notify_all()

    async def __aenter__(self) -> "Load":
        self._clients = [asyncio.create_task(self._ask()) for _ in range(8)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._ending = True
        await asyncio.gather(*self._clients)


def writing(engine: Any, by_middleware: bool) -> FastAPI:
    """Return an app that writes a row at each request, and again if it is refused."""
    app = FastAPI()
    # 503 where there was no database to be had for any attempt.
    add_exception_handlers(app)

    @app.exception_handler(OutcomeUnknown)
    async def tell(request: object, error: Exception) -> Response:
        return Response(status_code=UNKNOWN)

    if by_middleware:
        app.add_middleware(RetryMiddleware)
        get_session = async_session_dependency(engine)

        @app.post("/{number}")
        async def write_in_request(
            number: int, session: Annotated[AsyncSession, Depends(get_session)]
        ) -> None:
            await session.execute(INSERT, {"number": number})

    elif isinstance(engine, AsyncEngine):

        @app.post("/{number}")
        async def write(number: int) -> None:
            await async_run_in_session(
                engine, lambda session: session.execute(INSERT, {"number": number})
            )

    else:

        @app.post("/{number}")
        def write_in_thread(number: int) -> None:
            run_in_session(
                engine, lambda session: session.execute(INSERT, {"number": number})
            )

    return app
