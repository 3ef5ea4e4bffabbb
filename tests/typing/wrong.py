"""Wrong uses, each of which both checkers have to report. Type-checked, never run.

A line that ends in the comment `wrong` is to be reported, and no other is; see
`test_checkers.py`.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager

import sqlmodel
from fastapi import FastAPI
from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from safesession import async_session_scope, session_scope
from safesession.fastapi import (
    add_exception_handlers,
    async_session_dependency,
    session_dependency,
)
from safesession.retry import (
    async_in_session,
    async_run_in_session,
    in_session,
    run_in_session,
)


class MySession(Session): ...


class MyAsyncSession(AsyncSession): ...


engine = create_engine("sqlite://")
maker = sessionmaker(engine, class_=MySession)
async_engine = create_async_engine("sqlite+aiosqlite://")
async_maker = async_sessionmaker(async_engine, class_=MyAsyncSession)
url = URL.create("sqlite")


def opened_by_hand() -> Iterator[Session]:
    yield Session(engine)


@contextmanager
def managed_by_hand() -> Generator[Session, None, None]:
    yield Session(engine)


async def opened_by_hand_async() -> AsyncIterator[AsyncSession]:
    yield AsyncSession(async_engine)


async def get_engine_later() -> Engine:
    return engine


def get_session() -> Session:
    return Session(engine)


def get_bind(url: str) -> Engine | Connection:
    return create_engine(url)


# Binds of the wrong kind.

session_scope()  # wrong
session_scope("sqlite://")  # wrong
session_scope(url)  # wrong
session_scope(Session)  # wrong
session_scope(opened_by_hand)  # wrong
session_scope(opened_by_hand())  # wrong
session_scope(managed_by_hand)  # wrong
session_scope(get_engine_later)  # wrong
session_scope(get_session)  # wrong
session_scope(get_bind)  # wrong
session_scope(maker())  # a session: a savepoint in it
session_dependency("sqlite://")  # wrong
session_dependency(maker())  # wrong
session_dependency(opened_by_hand)  # wrong
async_session_scope("sqlite://")  # wrong
async_session_scope(opened_by_hand_async)  # wrong
async_session_dependency(async_maker())  # wrong

# Sync for async, and the reverse.

session_scope(async_engine)  # wrong
session_scope(async_maker)  # wrong
session_scope(async_maker())  # wrong
session_dependency(async_engine)  # wrong
session_dependency(async_maker)  # wrong
async_session_scope(engine)  # wrong
async_session_scope(maker)  # wrong
async_session_scope(maker())  # wrong
async_session_dependency(engine)  # wrong
async_session_dependency(lambda: engine)  # wrong

with async_session_scope(async_engine):  # wrong
    pass


async def entered_the_wrong_way() -> None:
    async with session_scope(engine):  # wrong
        pass


# Keywords.

session_scope(engine, MySession)  # wrong
session_scope(engine, autocommit=True)  # wrong
session_scope(engine, scope="request")  # wrong
session_scope(engine, class_=MySession(engine))  # wrong
session_scope(engine, class_=int)  # wrong
session_scope(engine, class_=AsyncSession)  # wrong
session_scope(maker, class_=MySession)  # wrong
session_scope(maker(), class_=MySession)  # wrong
session_scope(engine, commit_on=400)  # wrong
session_scope(engine, commit_on="HTTPException")  # wrong
session_scope(engine, commit_on=[ValueError])  # wrong
session_scope(engine, commit_on=ValueError())  # wrong
session_scope(engine, commit_on=(ValueError, 400))  # wrong
session_scope(engine, missing_ok="yes")  # wrong
async_session_scope(async_engine, class_=Session)  # wrong
async_session_scope(async_maker, class_=MyAsyncSession)  # wrong
async_session_scope(async_engine, commit_on=[ValueError])  # wrong
session_dependency(engine, scope="app")  # wrong
session_dependency(engine, class_=int)  # wrong
session_dependency(maker, class_=MySession)  # wrong
async_session_dependency(async_engine, scope=None)  # wrong
async_session_dependency(async_engine, class_=MySession)  # wrong

# What comes out.

with session_scope(engine) as session:
    session.exec("SELECT 1")  # wrong
    session.tenant()  # wrong

with session_scope(engine, missing_ok=True) as session_or_none:
    session_or_none.commit()  # wrong

with session_scope(engine) as wrong_class:
    my_session: MySession = wrong_class  # wrong


async def what_comes_out_async() -> None:
    async with async_session_scope(async_engine) as session:
        session.query(int)  # wrong
    async with async_session_scope(None, missing_ok=True) as session_or_none:
        await session_or_none.commit()  # wrong


async def what_a_dependency_gives() -> MySession:
    return await session_dependency(engine)()  # wrong


async def what_a_dependency_gives_where_none_is_ok() -> Session:
    return await session_dependency(engine, missing_ok=True)()  # wrong


async def what_an_async_dependency_gives() -> MyAsyncSession:
    return await async_session_dependency(async_engine)()  # wrong


# Work that is run again: the session class is the bind's, or `class_`.


def with_mine(session: MySession, amount: int = 5) -> int:
    return amount


def with_sqlmodel(session: sqlmodel.Session) -> None: ...


async def with_mine_async(session: MyAsyncSession) -> None: ...


run_in_session(engine, with_mine)  # wrong
run_in_session(engine, with_sqlmodel)  # wrong
run_in_session(engine, with_sqlmodel, class_=MySession)  # wrong
run_in_session(maker, with_sqlmodel)  # wrong
run_in_session(maker, with_mine, class_=MySession)  # wrong
run_in_session(engine.connect(), print)  # wrong
run_in_session(get_bind, print)  # wrong
run_in_session(lambda: engine.connect(), print)  # wrong
run_in_session(maker(), with_mine)  # wrong
run_in_session(None, print)  # wrong
run_in_session(async_engine, print)  # wrong
run_in_session(engine, print, attempts="5")  # wrong
run_in_session(engine, print, timeout="5")  # wrong
run_in_session(engine, print, missing_ok=True)  # wrong
in_session(engine)(with_sqlmodel)  # wrong
in_session(with_mine)  # wrong
in_session(None)  # wrong
in_session(engine.connect())  # wrong
in_session(maker)(with_mine)(amount="5")  # wrong
async_in_session(async_engine)(with_mine_async)  # wrong
async_in_session(async_engine)(with_mine)  # wrong
async_in_session(engine)  # wrong
async_run_in_session(async_engine, with_mine_async)  # wrong
async_run_in_session(async_maker, with_mine)  # wrong

# The handlers.

app = FastAPI()
add_exception_handlers()  # wrong
add_exception_handlers("app")  # wrong
add_exception_handlers(app, 5)  # wrong
add_exception_handlers(app, retry_after="5")  # wrong
