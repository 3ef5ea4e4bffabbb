"""What tests have run again: the ways to do so, and work and requests to be refused."""

from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import BackgroundTasks, Body, Depends, FastAPI, Request
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from apps import client, write
from models import Note
from safesession.retry import (
    RetryMiddleware,
    async_in_session,
    async_run_in_session,
    in_session,
    run_in_session,
)

if TYPE_CHECKING:
    from fastapi_fixtures import Database

# For modules whose tests ask a `Service`.
REQUESTS = [
    pytest.mark.anyio,
    pytest.mark.on("sqlite", "postgresql", "mariadb"),
    pytest.mark.usefixtures("no_backoff"),
]
CALLS = {
    call.__name__: call
    for call in (run_in_session, in_session, async_run_in_session, async_in_session)
}
SYNC = {"run_in_session", "in_session"}


class Refused:
    """Work that fails with these, one at each attempt, after it has written."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.sessions: list[Session] = []

    def __call__(self, session: Session) -> str:
        self.sessions.append(session)
        session.add(Note(text="once"))
        session.flush()
        if self._errors:
            raise self._errors.pop(0)
        return "returned"


class Driver(Exception):
    def __init__(self, sqlstate: str) -> None:
        super().__init__("secret text")
        self.sqlstate = sqlstate


def refusal(sqlstate: str = "40001") -> OperationalError:
    return OperationalError("UPDATE note SET text = ?", ("secret",), Driver(sqlstate))


def write_one(session: Session) -> None:
    session.add(Note(text="refused"))


def work_for(call: str) -> Any:
    async def work(session: Any) -> None:
        """Do nothing."""

    return write_one if call in SYNC else work


class Service:
    """An app whose database refuses its requests with these errors, one by one."""

    def __init__(self, database: "Database", **options: Any) -> None:
        self.errors: list[BaseException] = []
        self.calls: list[Any] = []
        self.mails: list[str] = []
        self.app = app = FastAPI()
        app.add_middleware(RetryMiddleware, **options)
        self.get = database.get_session()
        SessionDep = Annotated[Any, Depends(self.get)]

        @app.post("/notes", status_code=201)
        async def create(
            session: SessionDep, tasks: BackgroundTasks, text: Annotated[str, Body()]
        ) -> int:
            self.calls.append(text)
            await write(session, text)
            tasks.add_task(self.mails.append, text)
            self.fail()
            return len(self.calls)

    def stream_answers(self) -> None:
        """Have all answers come through a middleware, which streams them."""

        async def pass_on(request: Request, call_next: Any) -> Any:
            return await call_next(request)

        between = Middleware(BaseHTTPMiddleware, dispatch=pass_on)
        self.app.user_middleware.append(between)

    def fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def post(self, text: str = "once", *, raising: bool = False) -> Any:
        async with client(self.app, raising=raising) as http:
            return await http.post("/notes", json=text)
