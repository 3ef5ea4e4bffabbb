"""Scripts and jobs that take the session out of a dependency by themselves.

A fault: `next(get_session())` leaves the generator to Python, which closes it at once,
and then the session is used, which opens it again. What the generator would have
committed is not. An `async for` that is left by `return` leaves an async generator
open until the event loop gets to it.
"""

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")
async_session = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))


def get_session():
    with Session(engine) as session:
        yield session
        session.commit()


def get_db():
    session = Session(engine)
    try:
        yield session
    finally:
        session.close()


async def get_async_session():
    async with async_session() as session:
        yield session


def seed(row) -> None:
    next(get_session()).add(row)  # finds SAFE008


class Service:
    def __init__(self) -> None:
        self.session = next(get_db())  # finds SAFE008
        self.other = get_db().__next__()  # finds SAFE008


def backup() -> None:
    """Close by hand what is taken out, of which no commit is expected."""
    db = next(get_db())
    try:
        db.execute(select(1))
    finally:
        db.close()


def backup_and_commit(row) -> None:
    db = next(get_session())  # finds SAFE008
    db.add(row)
    db.close()


def held() -> None:
    """Keep hold of the generator, and close it."""
    generator = get_session()
    session = next(generator)
    session.execute(select(1))
    generator.close()


def test_an_error_before_the_yield() -> None:
    with pytest.raises(RuntimeError):
        next(get_db())


async def identify(request):
    session = await anext(get_async_session())  # finds SAFE008
    return await session.scalar(select(1))


async def first_row():
    async for session in get_async_session():  # finds SAFE008
        return (await session.execute(select(1))).all()


async def get_passed_on():
    async for session in get_async_session():  # finds SAFE008
        yield session


async def all_of_it():
    async for session in get_async_session():
        await session.execute(select(1))


def first_of_sync():
    for session in get_session():  # finds SAFE008
        return session.execute(select(1)).all()


def first_without_a_commit():
    for session in get_db():
        return session.execute(select(1)).all()


def passed_on():
    yield from get_session()
