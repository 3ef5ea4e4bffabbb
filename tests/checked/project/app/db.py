"""The session of a service in several files, and what passes it on."""

from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite:///app.db")
make = async_sessionmaker(engine)


@asynccontextmanager
async def unit_of_work():
    async with make() as session:
        try:
            yield session
        except BaseException:
            await session.rollback()
            raise
        else:
            await session.commit()


async def get_session():
    async with unit_of_work() as session:
        yield session


async def get_translated():
    async with make() as session:
        try:
            yield session
        except Exception as error:
            await session.rollback()
            raise RuntimeError from error  # finds SAFE012


async def never_depended_on():
    async with make() as session:
        try:
            yield session
        except Exception as error:
            await session.rollback()
            raise RuntimeError from error
