"""A scope inside another on a session of either kind, and what leaves each."""

import asyncio
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from contract import dispose, left_by, left_by_async
from safesession import async_session_scope, session_scope
from safesession.testing._harness import Body


class Left(NamedTuple):
    inner: BaseException | None
    outer: BaseException | None


class Nested:
    """Runs one scope inside another; what leaves the inner is caught in the outer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def run(
        self,
        inner: Body,
        *,
        before: Body = lambda session: None,
        after: Body = lambda session: None,
        **options: Any,
    ) -> Left:
        left: list[BaseException | None] = []

        def outer(session: Session) -> BaseException | None:
            before(session)
            left.append(left_by(session_scope(session, **options), inner))
            return after(session)

        return Left(outer=left_by(session_scope(self.engine), outer), inner=left[0])

    def close(self) -> None:
        self.engine.dispose()


class AsyncNested(Nested):
    def __init__(self, async_engine: AsyncEngine) -> None:
        self.engine = async_engine.sync_engine
        self._async_engine = async_engine
        self._loop = asyncio.Runner()

    def run(
        self,
        inner: Body,
        *,
        before: Body = lambda session: None,
        after: Body = lambda session: None,
        **options: Any,
    ) -> Left:
        async def outer() -> Left:
            left_inner = None
            try:
                async with async_session_scope(self._async_engine) as session:
                    await session.run_sync(before)
                    nested = async_session_scope(session, **options)
                    left_inner = await left_by_async(nested, inner)
                    error = await session.run_sync(after)
                    if error is not None:
                        raise error
            except BaseException as error:
                return Left(left_inner, error)
            return Left(left_inner, None)

        return self._loop.run(outer())

    def close(self) -> None:
        self._loop.run(dispose(self._async_engine))
        self._loop.close()
