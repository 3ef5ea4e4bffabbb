"""What tests have run again: the ways to do so, refusals, and work that is refused."""

from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from models import Note
from safesession.retry import (
    async_in_session,
    async_run_in_session,
    in_session,
    run_in_session,
)

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
