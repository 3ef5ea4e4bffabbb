"""Connections that MariaDB ends, and a COMMIT that it fails in."""

from unittest.mock import Mock

import pymysql
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from contract import Habitat, assert_nothing_left
from innodb import Writes, end_connection, id_of
from models import Note, stored
from safesession import OutcomeUnknown, session_scope
from safesession._lost import was_lost_in_commit
from safesession.retry import is_retryable

pytestmark = pytest.mark.on("mariadb")


def run_more(session: Session) -> None:
    session.execute(text("SELECT 1"))


def test_connection_that_the_server_ends_in_the_block(
    habitat: Habitat, observer: Engine
) -> None:
    """It is told by the next statement, and the work may be done again."""

    def lose(session: Session) -> None:
        end_connection(observer, id_of(session))
        run_more(session)

    writes = Writes(lose)

    left = habitat.run(writes)

    assert isinstance(left, DBAPIError)
    assert left.connection_invalidated
    assert is_retryable(left)
    assert not hasattr(left, "__notes__")
    assert_nothing_left(habitat, writes.session, [])


def test_connection_that_the_server_ends_before_the_commit(
    habitat: Habitat, observer: Engine
) -> None:
    """It is told by COMMIT, of which nobody knows then what has become of it."""
    writes = Writes(lambda session: end_connection(observer, id_of(session)))

    left = habitat.run(writes)

    assert isinstance(left, OutcomeUnknown)
    assert not is_retryable(left)
    assert_nothing_left(habitat, writes.session, [])


def test_connection_that_the_server_ends_before_an_exception(
    habitat: Habitat, observer: Engine
) -> None:
    """The exception leaves, with a note of the ROLLBACK that could not be sent."""
    error = LookupError("the cause")

    def lose(session: Session) -> BaseException:
        end_connection(observer, id_of(session))
        return error

    writes = Writes(lose)

    assert habitat.run(writes) is error
    (note,) = error.__notes__
    assert note.startswith("safesession: rollback failed, so the connection was inv")
    assert_nothing_left(habitat, writes.session, [])


@pytest.mark.parametrize("pre_ping", [True, False])
def test_connection_that_the_server_ends_in_the_pool(
    habitat: Habitat, observer: Engine, pre_ping: bool
) -> None:
    """With pool_pre_ping nobody notices; without, one block fails, and says so."""
    habitat.engine.pool._pre_ping = pre_ping
    ids: list[int] = []
    writes = Writes(lambda session: None)

    assert habitat.run(lambda session: ids.append(id_of(session))) is None
    end_connection(observer, ids[0])
    left = habitat.run(writes if pre_ping else run_more)

    if pre_ping:
        assert left is None
        assert_nothing_left(habitat, writes.session, ["lost"])
    else:
        assert isinstance(left, DBAPIError)
        assert left.connection_invalidated
        assert is_retryable(left)


IN_COMMIT = {
    "a Galera node that loses the others": (
        'Got error 6 "No such device or address" during COMMIT',
        True,
    ),
    "a conflict, in group replication": (
        "Got error 149 - 'Lock deadlock; Retry transaction' during COMMIT",
        False,
    ),
}


@pytest.mark.parametrize("told, is_unknown", IN_COMMIT.values(), ids=IN_COMMIT)
def test_server_that_fails_in_commit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, told: str, is_unknown: bool
) -> None:
    """It has not lost the connection, and cannot say what has become of the work.

    Its error is made here; test_galera.py has the first from a node.
    """
    failed = pymysql.err.OperationalError(1180, told)
    monkeypatch.setattr(engine.dialect, "do_commit", Mock(side_effect=failed))

    with pytest.raises(DBAPIError) as raised, session_scope(engine) as session:
        session.add(Note(text="lost"))

    error = raised.value
    assert error.orig is failed
    assert is_retryable(error) is not is_unknown
    assert isinstance(error, OutcomeUnknown) is is_unknown
    assert not error.connection_invalidated
    if is_unknown:
        assert str(error).startswith(
            "(The server has failed during COMMIT: the work may have been committed, "
            "or not. Look for it in a new scope before you do it again.)"
        )
    monkeypatch.undo()
    assert stored(engine) == []


def test_server_that_fails_in_a_statement() -> None:
    """The same code, elsewhere, says that the work is not committed."""
    failed = pymysql.err.OperationalError(1180, "Got error 6 during COMMIT")

    assert not was_lost_in_commit(OperationalError("INSERT", None, failed))
    assert was_lost_in_commit(OperationalError("XA COMMIT 'a'", None, failed))
