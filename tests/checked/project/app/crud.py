"""What endpoints have done to their session."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession


async def create(session: AsyncSession):
    session.add(object())


async def find(session: AsyncSession):
    return await session.scalar(select(1))
