"""A service that has come to this library, and still calls get_session() by itself.

A fault: what was a generator is a coroutine function now, for Depends() alone. It is
neither iterated over nor entered, and awaited it raises ScopeMisuse.
"""

import asyncio
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Session

from safesession import ScopeMisuse
from safesession import fastapi as safe
from safesession.fastapi import async_session_dependency, session_dependency

app = FastAPI()
engine = create_engine("sqlite:///app.db")
make = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))
get_session = session_dependency(engine, class_=Session)
get_async_session = async_session_dependency(make)
get_db: object = safe.session_dependency(bind=engine)
get_either = session_dependency(engine, scope="request" if app.debug else "function")
get_made = session_dependency(create_engine("sqlite:///other.db"))

SessionDep = Annotated[Session, Depends(get_session)]


def seed(row) -> None:
    next(get_session()).add(row)  # finds SAFE008


def count() -> None:
    for session in get_session():  # finds SAFE008
        session.execute(select(1))


def enter() -> None:
    with get_db() as session:  # finds SAFE008
        session.execute(select(1))


def keep():
    generator = get_made()  # finds SAFE008
    try:
        return next(generator)
    finally:
        generator.close()


async def loop() -> None:
    async for session in get_async_session():  # finds SAFE008
        await session.execute(select(1))


async def enter_async() -> None:
    async with get_async_session() as session:  # finds SAFE008
        await session.execute(select(1))


async def wait():
    session = await get_async_session()  # finds SAFE008
    return await session.execute(select(1))


def wait_for_it():
    try:
        return asyncio.run(get_either())  # finds SAFE008
    except ValueError:
        return None


def wait_once_more():
    try:
        return seed(None)
    except ScopeMisuse:
        return asyncio.run(get_either())  # finds SAFE008


def in_a_lambda():
    app.dependency_overrides[get_db] = lambda: get_session()  # finds SAFE008


@app.get("/made")
def made(session: Session = Depends(get_session())): ...  # finds SAFE008


class Job:
    session = get_session()  # finds SAFE008
    get_db = None

    def run(self):
        """A name of the class is not seen here."""
        return get_db()  # finds SAFE008


@app.get("/orders")
def read(session: SessionDep, other: Session = Depends(get_async_session)): ...


def in_a_function(engine) -> None:
    get_local = session_dependency(engine)

    def inner():
        return get_local()  # finds SAFE008

    inner()
