"""Whatever is raised, after whatever was done, the contract holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session

import contract
from contract import Habitat, Looks
from models import Note, Reply, stored
from safesession.testing import exceptions

STEPS = st.lists(
    st.sampled_from(["add", "flush", "query", "commit", "rollback", "savepoint"]),
    max_size=6,
)
LAST = st.sampled_from(["nothing", "close", "poison", "orphan"])


class Work:
    """A body that does what it is told, and knows what should be kept of it."""

    def __init__(self, steps: list[str], last: str, error: BaseException | None):
        self.steps = steps
        self.last = last
        self.error = error
        self.committed: list[str] = []
        self.pending: list[str] = []

    def __call__(self, session: Session) -> BaseException | None:
        self.session = session
        for number, step in enumerate([*self.steps, self.last]):
            getattr(self, step)(str(number))
        return self.error

    def expected(self, commit: bool) -> list[str]:
        if commit and self.last not in ("poison", "orphan"):
            return self.committed + self.pending
        return self.committed

    def nothing(self, text: str) -> None:
        pass

    def add(self, text: str) -> None:
        self.session.add(Note(text=text))
        self.pending.append(text)

    def flush(self, text: str) -> None:
        self.session.flush()

    def query(self, text: str) -> None:
        self.session.scalars(select(Note)).all()

    def commit(self, text: str) -> None:
        self.session.commit()
        self.committed += self.pending
        self.pending = []

    def rollback(self, text: str) -> None:
        self.session.rollback()
        self.pending = []

    def savepoint(self, text: str) -> None:
        self.session.begin_nested()
        self.add(text)
        self.session.flush()

    def close(self, text: str) -> None:
        self.session.close()
        self.pending = []

    def poison(self, text: str) -> None:
        """Have a flush fail, and hide it."""
        self.session.add_all([Note(text=text), Note(text=text)])
        with pytest.raises(IntegrityError):
            self.session.flush()

    def orphan(self, text: str) -> None:
        """Write what the database will refuse at COMMIT."""
        self.session.add(Reply(note_id=-1))
        self.session.flush()


@given(
    steps=STEPS,
    last=LAST,
    error=st.none() | exceptions(),
    commit_on=st.booleans(),
)
def test_contract_holds(
    habitat: Habitat,
    observer: Engine,
    steps: list[str],
    last: str,
    error: BaseException | None,
    commit_on: bool,
) -> None:
    """Points 1 to 7, after any work and any exception."""
    with observer.begin() as connection:
        connection.execute(delete(Note))
    work = Work(steps, last, error)
    looks = None if error is None else Looks(error)

    left = habitat.run(work, commit_on=BaseException if commit_on else ())

    if error is not None and looks is not None:
        assert left is not None
        if habitat.harness.carries(error):
            looks.assert_unchanged(left)
    elif last == "poison":
        assert isinstance(left, PendingRollbackError)
        assert "UNIQUE constraint failed" in str(left)
    elif last == "orphan":
        assert isinstance(left, IntegrityError)
    else:
        assert left is None
    kept = work.expected(commit=error is None or commit_on)
    assert sorted(kept) == stored(observer)
    contract.assert_nothing_left(habitat, work.session, kept)
