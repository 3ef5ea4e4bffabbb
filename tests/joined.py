"""A project that has said which database its tests are to be joined to."""

CONFTEST = """\
import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

path = Path(__file__).with_name("test.db")
engine = create_engine(f"sqlite:///{path}")
async_engine = create_async_engine(f"sqlite+aiosqlite:///{path}", poolclass=NullPool)


loops = []


@event.listens_for(async_engine.sync_engine, "checkout")
def note_loop(*args):
    loops.append(asyncio.get_running_loop())


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


def stored():
    with engine.connect() as connection:
        return list(connection.scalars(select(Note.text).order_by(Note.text)))


@pytest.fixture(scope="session", autouse=True)
def tables():
    # Another worker of pytest-xdist may have made it meanwhile.
    with suppress(OperationalError):
        Base.metadata.create_all(engine)
    yield
    engine.dispose()


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert stored() == []


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def safesession_bind():
    return engine


@pytest.fixture
def safesession_async_bind():
    return async_engine
"""
IMPORTS = """\
import asyncio
from typing import Annotated

import httpx
import pytest
from conftest import Note, async_engine, engine, loops
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from safesession import InvalidArgument, ScopeMisuse, async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency


"""
