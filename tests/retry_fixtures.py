"""Fixtures of the tests of what is run again."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import stamina
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from stamina.instrumentation import set_on_retry_hooks

from retried import CALLS, SYNC, Service
from safesession.retry import async_run_in_session, run_in_session

if TYPE_CHECKING:
    from fastapi_fixtures import Database


@pytest.fixture
def no_backoff() -> Iterator[None]:
    """Have nobody wait between attempts: stamina's own mode for tests."""
    stamina.set_testing(True, attempts=10, cap=True)
    yield
    stamina.set_testing(False)


@pytest.fixture
def on_retry() -> Iterator[Callable[[Callable[[Any], None]], None]]:
    """Have stamina call something when an attempt is to follow, before the wait."""
    yield lambda hook: set_on_retry_hooks([hook])
    set_on_retry_hooks(None)


@pytest.fixture(params=CALLS)
def run(
    request: pytest.FixtureRequest, engine: Engine, async_engine: AsyncEngine
) -> Callable[..., Any]:
    """Run a function of a sync session again and again, by each of the ways."""
    call: Callable[..., Any] = CALLS[request.param]

    def run_sync(function: Callable[[Session], Any], **options: Any) -> Any:
        if call is run_in_session:
            return call(engine, function, **options)
        return call(engine, **options)(function)()

    def run_async(function: Callable[[Session], Any], **options: Any) -> Any:
        async def main() -> Any:
            async def work(session: AsyncSession) -> Any:
                assert type(session) is options.get("class_", AsyncSession)
                return await session.run_sync(function)

            try:
                if call is async_run_in_session:
                    return await call(async_engine, work, **options)
                return await call(async_engine, **options)(work)()
            finally:
                await async_engine.dispose()

        return asyncio.run(main())

    return run_sync if request.param in SYNC else run_async


@pytest.fixture
def service(database: "Database") -> Service:
    return Service(database)
