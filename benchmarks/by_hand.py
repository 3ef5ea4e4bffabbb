"""The sessions that are written by hand, with care: commit, or roll back and raise."""

from collections.abc import AsyncIterator, Callable, Iterator

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker


def get_session_on(engine: Engine) -> Callable[[], Iterator[Session]]:
    """Return a generator function, for `Depends` or for `contextmanager`."""
    make_session = sessionmaker(engine)

    def get_session() -> Iterator[Session]:
        with make_session() as session:
            try:
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise

    return get_session


def async_get_session_on(
    engine: AsyncEngine,
) -> Callable[[], AsyncIterator[AsyncSession]]:
    """The same for an async engine."""
    make_session = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with make_session() as session:
            try:
                yield session
                await session.commit()
            except BaseException:
                await session.rollback()
                raise

    return get_session
