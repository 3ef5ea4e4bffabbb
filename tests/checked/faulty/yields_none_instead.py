"""A service that can do without its database: yields None where that is not there.

A fault: the second yield is for a database that cannot be reached, but what an endpoint
raises comes by it as well, and is answered by "generator didn't stop after throw()".
The first `yield None` is sound: nothing was thrown before it.
"""

import logging

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

logger = logging.getLogger(__name__)
connected = False
engine = create_async_engine("sqlite+aiosqlite:///app.db")
session_maker = async_sessionmaker(bind=engine, expire_on_commit=False)


async def get_db():
    if not connected:
        yield None
        return
    try:
        async with session_maker() as session:
            yield session
    except Exception as error:
        logger.error("no session: %s", error)
        yield None  # finds SAFE001
