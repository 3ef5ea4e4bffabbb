"""Connections that are lost on the network, at each moment that makes a difference."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from backends import Backend, engine_on
from contract import Habitat, assert_nothing_left
from models import stored
from proxied import Proxied, proxied
from proxy import Action, Proxy, Side
from safesession import OutcomeUnknown
from safesession.retry import is_retryable
from safesession.testing._harness import InTask
from test_aio import settle
from test_postgresql import Writes, contexts, sqlstate_of
from test_postgresql_connections import assert_rollback_failed

pytestmark = pytest.mark.on("postgresql")
each_loss = pytest.mark.parametrize("loss", ["cut", "reset"])


@pytest.fixture
def backend(backend: Backend) -> Iterator[Proxied]:
    with proxied(backend) as behind_proxy:
        yield behind_proxy


@pytest.fixture
def proxy(backend: Proxied) -> Proxy:
    return backend.proxy


@pytest.fixture
def observer(backend: Proxied) -> Engine:
    """Return an engine on the database itself."""
    return engine_on(backend.behind.url, poolclass=NullPool)


def assert_lost(left: BaseException | None) -> None:
    """Check that the driver's error has left, and that the work can be run again."""
    assert isinstance(left, DBAPIError)
    assert not isinstance(left, OutcomeUnknown)
    assert left.connection_invalidated
    assert is_retryable(left)
    assert not hasattr(left, "__notes__")


@each_loss
@pytest.mark.parametrize("side", ["client", "server"])
def test_lost_in_a_statement(
    habitat: Habitat, observer: Engine, proxy: Proxy, loss: Action, side: Side
) -> None:
    """Whether the server has run it or not, nothing is committed."""

    def lose(session: Session) -> None:
        # The answer holds what the statement does not.
        proxy.when(side, {"client": b"'an'", "server": b"answer"}[side], loss)
        session.execute(text("SELECT 'an' || 'swer'"))

    writes = Writes(lose)

    assert_lost(habitat.run(writes))
    assert_nothing_left(habitat, writes.session, [])


@each_loss
def test_lost_between_statements(
    habitat: Habitat, observer: Engine, proxy: Proxy, loss: Action
) -> None:
    """The next statement tells."""

    def lose(session: Session) -> None:
        proxy.lose_all(loss)
        session.execute(text("SELECT 1"))

    writes = Writes(lose)

    assert_lost(habitat.run(writes))
    assert_nothing_left(habitat, writes.session, [])


def assert_unknown(left: BaseException | None) -> None:
    """Check that what has left says so, and what the driver and SQLAlchemy have."""
    assert isinstance(left, OutcomeUnknown)
    assert left.connection_invalidated
    assert not is_retryable(left)
    assert not hasattr(left, "__notes__")
    cause = left.__cause__
    assert isinstance(cause, DBAPIError)
    assert not isinstance(cause, OutcomeUnknown)
    assert cause.orig is left.orig
    assert "may have been committed" in str(left)


BEFORE_AND_AFTER = [("client", []), ("server", ["lost"])]


@each_loss
@pytest.mark.parametrize("side, kept", BEFORE_AND_AFTER)
def test_lost_in_commit(
    habitat: Habitat,
    observer: Engine,
    proxy: Proxy,
    loss: Action,
    side: Side,
    kept: list[str],
) -> None:
    """It cannot be told whether the server got the COMMIT; what leaves says just so."""
    writes = Writes(lambda session: proxy.when(side, b"COMMIT", loss))

    left = habitat.run(writes)

    assert stored(observer) == kept
    assert_unknown(left)
    assert_nothing_left(habitat, writes.session, kept)


@pytest.mark.parametrize("side, kept", BEFORE_AND_AFTER)
def test_lost_in_commit_that_was_asked_for(
    habitat: Habitat, observer: Engine, proxy: Proxy, side: Side, kept: list[str]
) -> None:
    """The exception of the block leaves, with a note that says what is unknown."""
    error = LookupError("the cause")

    def lose(session: Session) -> BaseException:
        proxy.when(side, b"COMMIT", "cut")
        return error

    writes = Writes(lose)

    assert habitat.run(writes, commit_on=LookupError) is error
    (note,) = error.__notes__
    assert "OutcomeUnknown" in note
    assert_nothing_left(habitat, writes.session, kept)


@pytest.mark.parametrize("side, loss", [("client", "cut"), ("server", "reset")])
def test_lost_in_rollback(
    habitat: Habitat, observer: Engine, proxy: Proxy, side: Side, loss: Action
) -> None:
    """The exception of the block leaves, with a note."""
    error = LookupError("the cause")

    def lose(session: Session) -> BaseException:
        proxy.when(side, b"ROLLBACK", loss)
        return error

    writes = Writes(lose)

    assert habitat.run(writes) is error
    assert_rollback_failed(error)
    assert_nothing_left(habitat, writes.session, [])


class TwoPhase(Session):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, twophase=True, **options)


class AsyncTwoPhase(AsyncSession):
    sync_session_class = TwoPhase


def two_phase(habitat: Habitat) -> dict[str, Any]:
    is_async = habitat.bind is not habitat.engine
    return {"class_": AsyncTwoPhase if is_async else TwoPhase}


@pytest.fixture
def prepared(habitat: Habitat, observer: Engine) -> Iterator[Callable[[], int]]:
    """Count what is left prepared; at the end it is rolled back, or others wait."""
    look = observer.execution_options(isolation_level="AUTOCOMMIT")

    def gids() -> list[str]:
        ours = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        with look.connect() as connection:
            return list(connection.scalars(text(ours)))

    yield lambda: len(gids())
    for gid in gids():
        with look.connect() as connection:
            connection.exec_driver_sql(f"ROLLBACK PREPARED '{gid}'")


@pytest.mark.parametrize("side, kept", BEFORE_AND_AFTER)
def test_lost_in_commit_of_what_is_prepared(
    habitat: Habitat,
    observer: Engine,
    proxy: Proxy,
    prepared: Callable[[], int],
    side: Side,
    kept: list[str],
) -> None:
    """It is unknown, too: the work is committed, or still prepared."""
    writes = Writes(lambda session: proxy.when(side, b"COMMIT PREPARED", "cut"))

    left = habitat.run(writes, **two_phase(habitat))

    assert stored(observer) == kept
    assert prepared() == (not kept)
    assert_unknown(left)
    assert_nothing_left(habitat, writes.session, kept)


def test_lost_after_commit_of_what_is_prepared(
    habitat: Habitat, observer: Engine, proxy: Proxy, prepared: Callable[[], int]
) -> None:
    """SQLAlchemy sends a BEGIN after it, whose loss says nothing of the COMMIT."""
    if habitat.engine.driver == "psycopg":
        pytest.skip("psycopg has a method for it, which sends no BEGIN")
    writes = Writes(lambda session: proxy.when("client", b"BEGIN", "cut"))

    left = habitat.run(writes, **two_phase(habitat))

    assert_unknown(left)
    assert_nothing_left(habitat, writes.session, ["lost"])


@pytest.mark.parametrize("side", ["client", "server"])
def test_lost_while_it_is_prepared(
    habitat: Habitat,
    observer: Engine,
    proxy: Proxy,
    prepared: Callable[[], int],
    side: Side,
) -> None:
    """Nothing is committed, whether or not it is left prepared."""
    writes = Writes(lambda session: proxy.when(side, b"PREPARE TRANSACTION", "cut"))

    left = habitat.run(writes, **two_phase(habitat))

    assert prepared() == (side == "server")
    # SQLAlchemy 2.0 cannot roll back at this point, and raises an error of its own.
    assert_lost(next(e for e in contexts(left) if isinstance(e, DBAPIError)))
    assert_nothing_left(habitat, writes.session, [])


def test_commit_of_what_is_no_longer_prepared(
    habitat: Habitat, observer: Engine, prepared: Callable[[], int]
) -> None:
    """A COMMIT that is refused is no lost one, and leaves nothing either."""

    def roll_back(connection: object, xid: str, is_prepared: bool) -> None:
        autocommit = observer.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as other:
            other.exec_driver_sql(f"ROLLBACK PREPARED '{xid}'")

    writes = Writes()
    event.listen(habitat.engine, "commit_twophase", roll_back, once=True)

    left = habitat.run(writes, **two_phase(habitat))

    assert isinstance(left, DBAPIError)
    assert sqlstate_of(left) == "42704"
    assert not isinstance(left, OutcomeUnknown)
    assert_nothing_left(habitat, writes.session, [])


@pytest.mark.parametrize("side", ["client", "server"])
def test_commit_that_is_held_up(
    habitat: Habitat, observer: Engine, proxy: Proxy, side: Side
) -> None:
    """Who is cancelled meanwhile waits for the answer, and is cancelled then."""
    harness = habitat.harness
    if not isinstance(harness, InTask):
        pytest.skip("a thread is not cancelled")
    writes = Writes(lambda session: proxy.when(side, b"COMMIT", "stall"))

    async def cancel_and_go_on() -> BaseException | None:
        task = asyncio.create_task(harness.left_by(writes))
        await asyncio.to_thread(proxy.wait)
        for _ in range(3):
            task.cancel()
            await settle()
        committed = await asyncio.to_thread(stored, observer)
        assert committed == {"client": [], "server": ["lost"]}[side]
        assert not task.done()
        proxy.go_on()
        return await task

    left = harness.wait_for(cancel_and_go_on())

    assert isinstance(left, asyncio.CancelledError)
    assert_nothing_left(habitat, writes.session, ["lost"])
