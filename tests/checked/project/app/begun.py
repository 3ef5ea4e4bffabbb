"""Sessions that are committed where a block is left."""

from .db import make


async def get_begun():
    async with make.begin() as session:
        yield session


async def get_begun_inside():
    async with make() as session, session.begin():
        yield session


async def get_read_only():
    async with make() as session:
        try:
            yield session
        finally:
            await session.rollback()
