"""Async code that ends its session under `except Exception`, and nowhere else.

A fault: asyncio.CancelledError is no Exception. The session is not closed, and the
garbage collector cannot return an async connection: it drops it, with a warning.
"""

import asyncio

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

engine = create_async_engine("sqlite+aiosqlite:///app.db")
sync_engine = create_engine("sqlite:///app.db")
factory = async_sessionmaker(engine)


async def get_session():
    session = factory()
    try:
        yield session
        await session.commit()
    except Exception:  # finds SAFE007
        await session.rollback()
        raise
    else:
        await session.close()


async def import_rows(rows):
    session = AsyncSession(engine)
    try:
        session.add_all(rows)
        await session.commit()
    except Exception:  # finds SAFE007
        await session.rollback()
        await session.close()
        raise
    await session.close()


async def closed_in_any_case(rows):
    session = factory()
    try:
        session.add_all(rows)
        await session.commit()
    except Exception:
        await session.rollback()
        raise
    finally:
        await session.close()


async def cancellation_is_thought_of(rows):
    session = factory()
    try:
        session.add_all(rows)
        await session.commit()
    except Exception:
        await session.rollback()
        raise
    except asyncio.CancelledError:
        await session.close()
        raise
    await session.close()


async def somebody_else_closes(stack, rows):
    session = factory()
    stack.push_async_callback(session.close)
    try:
        await session.commit()
    except Exception:
        await session.close()


async def open_session():
    session = factory()
    try:
        await session.connection()
    except Exception:
        await session.close()
        raise
    return session


async def managed_elsewhere(rows):
    session = factory()
    async with session:
        try:
            await session.commit()
        except Exception:
            await session.close()


async def nothing_is_opened(session: AsyncSession):
    try:
        await session.commit()
    except Exception:
        await session.close()


class Keeper:
    async def keep(self):
        session = factory()
        self.session = session
        try:
            await session.commit()
        except Exception:
            await session.close()


async def nothing_is_waited_for(rows):
    session = factory()
    try:
        session.add_all(rows)
    except Exception:
        await session.close()


async def closed_on_the_way_out_only():
    """Hand nothing back on a cancellation, but on no exception either."""
    session = factory()
    try:
        await session.commit()
    except ValueError:
        print("not committed")
    await session.close()


async def sync_session(work):
    session = Session(sync_engine)
    try:
        await work(1)
        session.commit()
    except Exception:
        session.rollback()
        session.close()
        raise
    session.close()
