"""The public signatures, held to what DESIGN promises. Type-checked, never run.

Both checkers have to agree with every line of this file; `wrong.py` is its counterpart.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar, assert_type

import sqlmodel
import sqlmodel.ext.asyncio.session as sqlmodel_aio
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

import safesession
from safesession import (
    EngineNotConfigured,
    InvalidArgument,
    MissingExtra,
    SafeSessionError,
    ScopeMisuse,
    async_session_scope,
    session_scope,
)
from safesession.fastapi import (
    add_exception_handlers,
    async_session_dependency,
    session_dependency,
)
from safesession.retry import (
    RetryMiddleware,
    async_in_session,
    async_run_in_session,
    in_session,
    is_retryable,
    run_in_session,
)


class MySession(Session):
    """A session class of the user's."""

    tenant: str


class MyAsyncSession(AsyncSession):
    """An async session class of the user's."""

    tenant: str


class Hero(sqlmodel.SQLModel, table=True):
    id: int | None = sqlmodel.Field(default=None, primary_key=True)


T = TypeVar("T")
Dep = Callable[..., Coroutine[Any, Any, T]]
AsyncDep = Dep[AsyncSession]

engine = create_engine("sqlite://")
async_engine = create_async_engine("sqlite+aiosqlite://")


# What sessions are opened on, and their class.


def sync_binds(
    connection: Connection,
    plain: sessionmaker[Session],
    mine: sessionmaker[MySession],
) -> None:
    with session_scope(engine) as session:
        assert_type(session, Session)
    with session_scope(bind=engine) as session:
        assert_type(session, Session)
    with session_scope(connection) as session:
        assert_type(session, Session)
    with session_scope(plain) as session:
        assert_type(session, Session)
    with session_scope(sessionmaker(engine)) as session:
        assert_type(session, Session)
    with session_scope(mine) as my_session:
        assert_type(my_session, MySession)
    with session_scope(sessionmaker(engine, class_=MySession)) as my_session:
        assert_type(my_session, MySession)
    with session_scope(engine, class_=MySession) as my_session:
        assert_type(my_session, MySession)
    with session_scope(connection, class_=MySession) as my_session:
        assert_type(my_session, MySession)
    with session_scope(None) as session:
        assert_type(session, Session)


async def async_binds(
    connection: AsyncConnection,
    plain: async_sessionmaker[AsyncSession],
    mine: async_sessionmaker[MyAsyncSession],
) -> None:
    async with async_session_scope(async_engine) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(bind=async_engine) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(connection) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(plain) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(async_sessionmaker(async_engine)) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(mine) as my_session:
        assert_type(my_session, MyAsyncSession)
    async with async_session_scope(async_engine, class_=MyAsyncSession) as my_session:
        assert_type(my_session, MyAsyncSession)
    async with async_session_scope(connection, class_=MyAsyncSession) as my_session:
        assert_type(my_session, MyAsyncSession)
    async with async_session_scope(None) as session:
        assert_type(session, AsyncSession)


# Callables that return what sessions are opened on.


def get_engine() -> Engine:
    return engine


def get_engine_if_any() -> Engine | None:
    return engine


def get_bind_if_any() -> Engine | Connection | None:
    return engine


def get_maker() -> sessionmaker[MySession]:
    return sessionmaker(engine, class_=MySession)


def get_maker_if_any() -> sessionmaker[MySession] | None:
    return None


def get_nothing() -> None:
    return None


class Settings:
    """A bound method and a callable object are callables too."""

    def engine(self) -> Engine:
        return engine

    def __call__(self) -> sessionmaker[MySession]:
        return sessionmaker(engine, class_=MySession)


def sync_callables(settings: Settings) -> None:
    with session_scope(get_engine) as session:
        assert_type(session, Session)
    with session_scope(get_engine_if_any) as session:
        assert_type(session, Session)
    with session_scope(get_bind_if_any) as session:
        assert_type(session, Session)
    with session_scope(get_nothing) as session:
        assert_type(session, Session)
    with session_scope(lambda: engine) as session:
        assert_type(session, Session)
    with session_scope(settings.engine) as session:
        assert_type(session, Session)
    with session_scope(get_engine, class_=MySession) as my_session:
        assert_type(my_session, MySession)
    with session_scope(get_maker) as my_session:
        assert_type(my_session, MySession)
    with session_scope(get_maker_if_any) as my_session:
        assert_type(my_session, MySession)
    with session_scope(settings) as my_session:
        assert_type(my_session, MySession)


def get_async_engine() -> AsyncEngine:
    return async_engine


def get_async_engine_if_any() -> AsyncEngine | None:
    return async_engine


def get_async_maker() -> async_sessionmaker[MyAsyncSession]:
    return async_sessionmaker(async_engine, class_=MyAsyncSession)


def get_async_maker_if_any() -> async_sessionmaker[MyAsyncSession] | None:
    return None


async def async_callables() -> None:
    async with async_session_scope(get_async_engine) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(get_async_engine_if_any) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(get_nothing) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(lambda: async_engine) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(
        get_async_engine, class_=MyAsyncSession
    ) as my_session:
        assert_type(my_session, MyAsyncSession)
    async with async_session_scope(get_async_maker) as my_session:
        assert_type(my_session, MyAsyncSession)
    async with async_session_scope(get_async_maker_if_any) as my_session:
        assert_type(my_session, MyAsyncSession)


# A session for a bind: a savepoint in it, and the session itself.


def sync_savepoints(
    outer: Session, mine: MySession, either: Engine | Session, maybe: Engine | None
) -> None:
    with session_scope(outer) as session:
        assert_type(session, Session)
    with session_scope(mine) as my_session:
        assert_type(my_session, MySession)
    # So a function that takes `bind` composes.
    with session_scope(either) as session:
        assert_type(session, Session)
    with session_scope(maybe) as session:
        assert_type(session, Session)


async def async_savepoints(
    outer: AsyncSession, mine: MyAsyncSession, either: AsyncEngine | AsyncSession
) -> None:
    async with async_session_scope(outer) as session:
        assert_type(session, AsyncSession)
    async with async_session_scope(mine) as my_session:
        assert_type(my_session, MyAsyncSession)
    async with async_session_scope(either) as session:
        assert_type(session, AsyncSession)


# missing_ok


def sync_missing_ok(
    mine: sessionmaker[MySession], outer: MySession, flag: bool
) -> None:
    with session_scope(engine, missing_ok=True) as session:
        assert_type(session, Session | None)
        if session is not None:
            assert_type(session, Session)
    with session_scope(get_engine_if_any, missing_ok=True) as session:
        assert_type(session, Session | None)
    with session_scope(None, missing_ok=True) as session:
        assert_type(session, Session | None)
    with session_scope(engine, class_=MySession, missing_ok=True) as my_session:
        assert_type(my_session, MySession | None)
    with session_scope(mine, missing_ok=True) as my_session:
        assert_type(my_session, MySession | None)
    with session_scope(get_maker_if_any, missing_ok=True) as my_session:
        assert_type(my_session, MySession | None)
    with session_scope(outer, missing_ok=True) as my_session:
        assert_type(my_session, MySession | None)
    with session_scope(engine, missing_ok=flag) as session:
        assert_type(session, Session | None)
    with session_scope(engine, missing_ok=False) as never_none:
        assert_type(never_none, Session)


async def async_missing_ok(
    mine: async_sessionmaker[MyAsyncSession], flag: bool
) -> None:
    async with async_session_scope(async_engine, missing_ok=True) as session:
        assert_type(session, AsyncSession | None)
    async with async_session_scope(None, missing_ok=True) as session:
        assert_type(session, AsyncSession | None)
    async with async_session_scope(
        async_engine, class_=MyAsyncSession, missing_ok=True
    ) as my_session:
        assert_type(my_session, MyAsyncSession | None)
    async with async_session_scope(mine, missing_ok=True) as my_session:
        assert_type(my_session, MyAsyncSession | None)
    async with async_session_scope(get_async_maker_if_any, missing_ok=True) as maybe:
        assert_type(maybe, MyAsyncSession | None)
    async with async_session_scope(async_engine, missing_ok=flag) as session:
        assert_type(session, AsyncSession | None)
    async with async_session_scope(async_engine, missing_ok=False) as never_none:
        assert_type(never_none, AsyncSession)


# commit_on


def sync_commit_on() -> None:
    with session_scope(engine, commit_on=HTTPException) as session:
        assert_type(session, Session)
    with session_scope(engine, commit_on=(HTTPException, KeyboardInterrupt)) as session:
        assert_type(session, Session)
    with session_scope(engine, commit_on=()) as session:
        assert_type(session, Session)


async def async_commit_on() -> None:
    async with async_session_scope(async_engine, commit_on=HTTPException) as session:
        assert_type(session, AsyncSession)


# read_only


def read_only(mine: sessionmaker[MySession], flag: bool) -> None:
    with session_scope(engine, read_only=True) as session:
        assert_type(session, Session)
    with session_scope(mine, read_only=flag, missing_ok=True) as my_session:
        assert_type(my_session, MySession | None)
    assert_type(session_dependency(engine, read_only=True), Dep[Session])
    assert_type(async_session_dependency(async_engine, read_only=True), AsyncDep)


# Work that is run again: the function says what it is called with.


def transfer(session: Session) -> int:
    return 1


def tenant_of(session: MySession) -> str:
    return session.tenant


def move(session: MySession, amount: int, *, note: str = "") -> str:
    return note


async def async_move(session: MyAsyncSession, amount: int) -> str:
    return str(amount)


def count(session: sqlmodel.Session) -> int:
    return len(session.exec(sqlmodel.select(Hero)).all())


def runs_again(mine: sessionmaker[MySession]) -> None:
    assert_type(run_in_session(engine, transfer), int)
    assert_type(run_in_session(mine, tenant_of), str)
    assert_type(run_in_session(get_engine, transfer, attempts=None, timeout=5), int)
    moved = in_session(mine)(move)
    assert_type(moved(5, note="for lunch"), str)
    moved = in_session(engine, class_=MySession, idempotent=True)(move)
    assert_type(moved(5), str)
    assert_type(run_in_session(engine, tenant_of, class_=MySession, attempts=2), str)
    assert_type(run_in_session(get_engine_if_any, transfer, read_only=True), int)
    assert_type(run_in_session(sessionmaker(engine), transfer), int)
    assert_type(run_in_session(lambda: mine, tenant_of, commit_on=ValueError), str)
    counted = in_session(engine, class_=sqlmodel.Session)(count)
    assert_type(counted(), int)
    assert_type(is_retryable(ValueError()), bool)
    FastAPI().add_middleware(RetryMiddleware, attempts=3, max_body_size=1)


async def async_scalar(session: AsyncSession) -> int:
    return 1


async def runs_again_async(mine: async_sessionmaker[MyAsyncSession]) -> None:
    async def work(session: MyAsyncSession) -> str:
        return session.tenant

    assert_type(await async_run_in_session(mine, work), str)
    moved = async_in_session(mine)(async_move)
    assert_type(await moved(5), str)
    moved = async_in_session(async_engine, class_=MyAsyncSession)(async_move)
    assert_type(await moved(5), str)
    assert_type(
        await async_run_in_session(async_engine, work, class_=MyAsyncSession), str
    )
    assert_type(await async_run_in_session(async_engine, async_scalar), int)
    assert_type(await async_in_session(get_async_engine)(async_scalar)(), int)


# The scope never swallows an exception: a checker asks for no `return` after it.


def returns_from_the_block() -> int:
    with session_scope(engine):
        return 1


async def returns_from_the_async_block() -> int:
    async with async_session_scope(async_engine):
        return 1


# A scope has a type that can be written.


def make_scope() -> session_scope[MySession]:
    return session_scope(engine, class_=MySession)


def make_async_scope() -> async_session_scope[MyAsyncSession]:
    return async_session_scope(async_engine, class_=MyAsyncSession)


# SQLModel: `.exec` is known.


def sqlmodel_sessions() -> None:
    with session_scope(engine, class_=sqlmodel.Session) as session:
        assert_type(session, sqlmodel.Session)
        assert_type(session.exec(sqlmodel.select(Hero)).one(), Hero)
    maker = sessionmaker(engine, class_=sqlmodel.Session)
    with session_scope(maker) as session:
        assert_type(session, sqlmodel.Session)


async def sqlmodel_async_sessions() -> None:
    async with async_session_scope(
        async_engine, class_=sqlmodel_aio.AsyncSession
    ) as session:
        assert_type(session, sqlmodel_aio.AsyncSession)
        heroes = await session.exec(sqlmodel.select(Hero))
        assert_type(heroes.one(), Hero)


# The dependencies: what `Depends(get_session)` gives.


def sync_dependencies(
    connection: Connection, mine: sessionmaker[MySession], flag: bool
) -> None:
    assert_type(session_dependency(engine), Dep[Session])
    assert_type(session_dependency(connection), Dep[Session])
    assert_type(session_dependency(get_engine), Dep[Session])
    assert_type(session_dependency(get_engine_if_any), Dep[Session])
    assert_type(session_dependency(lambda: engine), Dep[Session])
    assert_type(session_dependency(sessionmaker(engine)), Dep[Session])
    assert_type(session_dependency(mine), Dep[MySession])
    assert_type(session_dependency(get_maker), Dep[MySession])
    assert_type(session_dependency(get_maker_if_any), Dep[MySession])
    assert_type(session_dependency(engine, class_=MySession), Dep[MySession])
    assert_type(
        session_dependency(engine, class_=sqlmodel.Session), Dep[sqlmodel.Session]
    )
    assert_type(session_dependency(engine, missing_ok=True), Dep[Session | None])
    assert_type(session_dependency(engine, missing_ok=flag), Dep[Session | None])
    assert_type(session_dependency(engine, missing_ok=False), Dep[Session])
    assert_type(session_dependency(None, missing_ok=True), Dep[Session | None])
    assert_type(session_dependency(mine, missing_ok=True), Dep[MySession | None])
    assert_type(
        session_dependency(engine, class_=MySession, missing_ok=True),
        Dep[MySession | None],
    )
    assert_type(
        session_dependency(engine, scope="request", commit_on=HTTPException),
        Dep[Session],
    )
    assert_type(session_dependency(mine, scope="function"), Dep[MySession])


def async_dependencies(
    connection: AsyncConnection, mine: async_sessionmaker[MyAsyncSession], flag: bool
) -> None:
    assert_type(async_session_dependency(async_engine), Dep[AsyncSession])
    assert_type(async_session_dependency(connection), Dep[AsyncSession])
    assert_type(async_session_dependency(get_async_engine), Dep[AsyncSession])
    assert_type(async_session_dependency(mine), Dep[MyAsyncSession])
    assert_type(async_session_dependency(get_async_maker), Dep[MyAsyncSession])
    assert_type(
        async_session_dependency(async_engine, class_=MyAsyncSession),
        Dep[MyAsyncSession],
    )
    assert_type(
        async_session_dependency(async_engine, class_=sqlmodel_aio.AsyncSession),
        Dep[sqlmodel_aio.AsyncSession],
    )
    assert_type(
        async_session_dependency(async_engine, missing_ok=True),
        Dep[AsyncSession | None],
    )
    assert_type(
        async_session_dependency(mine, missing_ok=flag), Dep[MyAsyncSession | None]
    )
    assert_type(
        async_session_dependency(
            async_engine, scope="request", commit_on=(HTTPException,)
        ),
        Dep[AsyncSession],
    )


type_of_dependency = session_dependency(engine, class_=MySession)


async def called_by_hand() -> None:
    # Depends() itself tells a checker nothing; the return type of its argument is what
    # an IDE and a test double have to go by.
    assert_type(await type_of_dependency(), MySession)


# In an app, as DESIGN spells it.

app = FastAPI()
assert_type(add_exception_handlers(app), None)
add_exception_handlers(app, retry_after=5)

get_session = session_dependency(engine, class_=sqlmodel.Session)
SessionDep = Annotated[sqlmodel.Session, Depends(get_session)]


@app.get("/heroes")
def read_heroes(session: SessionDep) -> list[Hero]:
    return list(session.exec(sqlmodel.select(Hero)))


app.dependency_overrides[get_session] = lambda: sqlmodel.Session(engine)


# Errors: one base, and what each is besides.

errors: list[type[SafeSessionError]] = [
    EngineNotConfigured,
    InvalidArgument,
    MissingExtra,
    ScopeMisuse,
]
runtime_errors: list[type[RuntimeError]] = [EngineNotConfigured, ScopeMisuse]
type_error: type[TypeError] = InvalidArgument
import_error: type[ImportError] = MissingExtra

assert_type(safesession.session_scope(engine), session_scope[Session])
assert_type(
    safesession.async_session_scope(async_engine), async_session_scope[AsyncSession]
)
