"""What the documentations of FastAPI and SQLModel have, and many services.

Endpoints commit, or the generator does and raises again: nothing is lost. From Open
Assistant, Mealie, Dispatch, Airflow, Langflow, Polar, dstack, Open WebUI and others.
"""

import logging
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

logger = logging.getLogger(__name__)
engine = create_engine("sqlite:///app.db")
SessionLocal = sessionmaker(autoflush=False, bind=engine)
async_session = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))


def get_db() -> Generator:
    with Session(engine) as db:
        yield db


def generate_session() -> Generator[Session, None, None]:
    db = SessionLocal()
    try:
        yield db
    finally:
        db.close()


get_db_context = contextmanager(generate_session)


@contextmanager
def create_session():
    session = SessionLocal()
    try:
        yield session
        session.commit()
    except Exception:
        session.rollback()
        raise
    finally:
        session.close()


@contextmanager
def tracked_session():
    session = SessionLocal()
    key = id(session)
    try:
        yield session
        session.commit()
    except:
        session.rollback()
        raise
    finally:
        print("no longer tracked", key)
        session.close()


@asynccontextmanager
async def session_scope() -> AsyncGenerator[AsyncSession, None]:
    async with async_session() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            logger.exception("rolled back")
            await session.rollback()
            raise


async def get_managed() -> AsyncGenerator[AsyncSession, None]:
    async with session_scope() as session:
        yield session


async def get_in_a_transaction():
    async with async_session() as session:
        try:
            yield session
        except:
            await session.rollback()
            raise
        else:
            await session.commit()


async def entered_twice():
    async with async_session() as session:
        async with session as inner:
            yield inner
            await inner.commit()


async def closed_as_far_as_possible():
    session = async_session()
    try:
        yield session
    except Exception as error:
        await session.rollback()
        raise error
    finally:
        try:
            await session.close()
        except Exception:
            logger.warning("not closed")


async def prepared_first():
    """Give up a statement that fails before the yield, which is none of the block's."""
    async with async_session() as session:
        try:
            await session.connection()
            await session.commit()
        except Exception:
            await session.rollback()
        yield session


async def from_a_parameter(sessionmaker) -> AsyncGenerator[AsyncSession, None]:
    async with sessionmaker() as session:
        try:
            yield session
        except:
            await session.rollback()
            raise
        else:
            await session.commit()


async def by_another_name() -> AsyncGenerator[AsyncSession, None]:
    make = async_session
    async with make() as db:
        yield db


@asynccontextmanager
async def of_a_tenant(tenant: str) -> AsyncGenerator[AsyncSession, None]:
    async with async_session() as session:
        session.sync_session.info["tenant"] = tenant
        try:
            yield session
        finally:
            pass


def passed_on() -> Generator[Session, None, None]:
    yield from generate_session()
