"""What the ways to run work again take, and how each refuses the rest."""

import asyncio
from collections.abc import Callable
from functools import partial
from inspect import CORO_CLOSED, getcoroutinestate
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from models import Note, stored
from retried import CALLS, SYNC, work_for, write_one
from safesession import EngineNotConfigured, InvalidArgument
from safesession.retry import (
    RetryMiddleware,
    async_in_session,
    async_run_in_session,
    in_session,
    run_in_session,
)

pytestmark = pytest.mark.usefixtures("no_backoff")
pytest_plugins = ("retry_fixtures",)


def test_argument_of_the_wrong_kind_is_told_at_once(engine: Engine) -> None:
    """The decorator tells it, and not the first call."""
    with pytest.raises(InvalidArgument, match="commit_on"):
        in_session(engine, commit_on="LookupError")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="as its bind"):
        in_session("sqlite://")  # type: ignore[arg-type, var-annotated]


def test_coroutine_function_for_a_sync_session(engine: Engine) -> None:
    """Its work would not be done before the commit."""

    async def work(session: Session) -> None:
        pass

    with pytest.raises(InvalidArgument) as raised:
        run_in_session(engine, work)

    assert str(raised.value) == (
        "run_in_session() got the function work(), which is a coroutine function or a "
        "generator. A coroutine function goes with async_run_in_session()."
    )


@pytest.mark.parametrize(
    "options, told",
    [
        ({"attempts": "5"}, "an object of type str as attempts"),
        ({"attempts": True}, "an object of type bool as attempts"),
        ({"attempts": 0}, "0 as attempts"),
        ({"attempts": -1}, "-1 as attempts"),
        ({"attempts": 1.5}, "1.5 as attempts"),
        ({"timeout": "5"}, "an object of type str as timeout"),
        ({"timeout": True}, "an object of type bool as timeout"),
        ({"timeout": 0}, "0 as timeout"),
        ({"timeout": -0.5}, "-0.5 as timeout"),
        ({"timeout": float("nan")}, "nan as timeout"),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [*CALLS, "RetryMiddleware"])
def test_limits_that_are_none(
    engine: Engine, async_engine: AsyncEngine, call: str, options: Any, told: str
) -> None:
    """They are refused by the call, which says what to pass instead."""
    remedy = {
        "attempts": "Pass how many attempts there may be, 1 or more; or None for no "
        "limit.",
        "timeout": "Pass for how many seconds attempts may follow, more than 0; or "
        "None for no limit.",
    }[next(iter(options))]

    with pytest.raises(InvalidArgument) as raised:
        calling(call, engine if call in SYNC else async_engine, write_one, options)

    assert str(raised.value) == f"{call}() got {told}. {remedy}"


def calling(call: str, bind: Any, function: Any, options: Any) -> Any:
    """Make the call with a bind and a function, or the middleware."""
    if call == "RetryMiddleware":
        return RetryMiddleware(bind, **options)
    if call.endswith("in_session") and "run" not in call:
        return CALLS[call](bind, **options)(function)
    if call == "run_in_session":
        return run_in_session(bind, function, **options)
    return asyncio.run(async_run_in_session(bind, function, **options))


def test_limits_that_are_some(run: Callable[..., Any], observer: Engine) -> None:
    """The least attempts, the shortest time, and no limit at all."""
    for number, options in enumerate(
        ({"attempts": 1}, {"timeout": 0.001}, {"attempts": None, "timeout": None})
    ):
        run(lambda session, text=str(number): session.add(Note(text=text)), **options)

    assert stored(observer) == ["0", "1", "2"]


@pytest.mark.parametrize("call", CALLS)
def test_errors_name_the_call(
    engine: Engine, async_engine: AsyncEngine, call: str
) -> None:
    """It is the one that was made, whatever it makes use of."""
    mine, others = (engine, async_engine) if call in SYNC else (async_engine, engine)
    other_call = call[6:] if call.startswith("async_") else f"async_{call}"
    kinds = "Engine or sessionmaker"
    if call not in SYNC:
        kinds = "AsyncEngine or async_sessionmaker"

    def told(bind: Any, **options: Any) -> str:
        with pytest.raises((InvalidArgument, EngineNotConfigured)) as raised:
            calling(call, bind, work_for(call), options)
        return str(raised.value)

    assert told(others) == (
        f"{call}() got an object of type {type(others).__name__} as its bind. That one "
        f"goes with {other_call}(). Pass an instance of {kinds}, or a callable that "
        "returns one."
    )
    assert told(mine, class_=int).startswith(f"{call}() got the class int as class_.")
    assert told(mine, commit_on=5).startswith(f"{call}() got an object of type int in")
    if "run" in call:
        assert told(None) == (
            f"{call}() has no engine to open a session on: the bind is None. Configure "
            "the engine before the work is run."
        )
        assert told(lambda: 5).startswith(f"{call}() got an object of type int from")


@pytest.mark.parametrize("call", CALLS)
def test_function_that_cannot_be_called(
    engine: Engine, async_engine: AsyncEngine, call: str
) -> None:
    """It is refused by the call, as is what has no session for a first argument."""
    bind = engine if call in SYNC else async_engine

    with pytest.raises(InvalidArgument) as raised:
        calling(call, bind, "work", {})

    assert str(raised.value) == (
        f"{call}() got an object of type str as its function. Pass what can be called "
        "with the session."
    )


def test_result_to_await_of_a_sync_session(engine: Engine, observer: Engine) -> None:
    """Its work would not be done before the commit; and Python is not to complain."""
    begun: list[Any] = []

    async def work(session: Session) -> None:
        raise AssertionError

    def begin(session: Session) -> Any:
        session.add(Note(text="rolled back"))
        begun.append(work(session))
        return begun[0]

    with pytest.raises(InvalidArgument) as raised:
        run_in_session(engine, begin)
    with pytest.raises(InvalidArgument):
        run_in_session(engine, lambda session: ToAwait())

    assert str(raised.value) == (
        "run_in_session() got the function begin(), which returned what is to be "
        "awaited: its work was rolled back. It goes with async_run_in_session()."
    )
    assert getcoroutinestate(begun[0]) == CORO_CLOSED
    assert stored(observer) == []


class ToAwait:
    def __await__(self) -> Any:
        raise AssertionError


@pytest.mark.anyio
async def test_function_that_is_not_to_be_awaited(
    async_engine: AsyncEngine, observer: Engine
) -> None:
    """A decorator refuses it, and a call rolls back what it did."""

    async def work(session: AsyncSession, text: str = "ours") -> str:
        session.add(Note(text=text))
        return text

    class Callable:
        async def __call__(self, session: AsyncSession) -> str:
            return "called"

    with pytest.raises(InvalidArgument) as raised:
        async_in_session(async_engine)(write_one)
    assert str(raised.value) == (
        "async_in_session() got the function write_one(), which is no coroutine "
        "function. Define it by 'async def'; a function of a sync session goes with "
        "in_session()."
    )
    with pytest.raises(InvalidArgument) as raised:
        await async_run_in_session(
            async_engine, lambda session: session.add(Note(text="x"))
        )
    assert str(raised.value) == (
        "async_run_in_session() got the function <lambda>(), which returned nothing "
        "to await: its work was rolled back. It goes with run_in_session()."
    )
    for function in (Callable(), partial(work, text="by partial")):
        await async_in_session(async_engine)(function)()
    assert await async_in_session(async_engine)(work)(text="given") == "given"
    assert (
        await async_run_in_session(async_engine, lambda session: work(session))
        == "ours"
    )
    assert stored(observer) == ["by partial", "given", "ours"]
