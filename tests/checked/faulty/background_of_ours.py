"""A service that uses this library, and gives its sessions to background tasks.

A fault: the session has ended when the task runs, and refuses to be used. One with
scope="request" ends after the task, and is sound; but not in a task of asyncio's.
"""

import asyncio
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlmodel import Session, create_engine
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse

from safesession import async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency

app = FastAPI()
engine = create_engine("sqlite:///app.db")
make = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))
get_session = session_dependency(engine, class_=Session)
get_async_session = async_session_dependency(make)
get_streamed = session_dependency(scope="request", bind=engine)
get_made = session_dependency(create_engine("sqlite:///other.db"))
get_either = session_dependency(engine, scope="request" if app.debug else "function")

SessionDep = Annotated[Session, Depends(get_session)]
AsyncSessionDep = Annotated[AsyncSession, Depends(get_async_session)]


def send_email(session: Session) -> None: ...


async def recount(session: AsyncSession) -> None: ...


@app.post("/alias")
def by_alias(tasks: BackgroundTasks, session: SessionDep):
    tasks.add_task(send_email, session)  # finds SAFE009


@app.post("/default")
def by_default(tasks: BackgroundTasks, session: Session = Depends(get_session)):
    tasks.add_task(send_email, session)  # finds SAFE009


@app.post("/streamed")
async def streamed(tasks: BackgroundTasks, session: Session = Depends(get_streamed)):
    tasks.add_task(send_email, session)
    asyncio.create_task(recount(session))  # finds SAFE009
    return JSONResponse({}, background=BackgroundTask(send_email, session))


@app.post("/streamed/whatever")
def whatever_depends_says(
    tasks: BackgroundTasks, session: Session = Depends(get_streamed, scope="function")
):
    tasks.add_task(send_email, session)


@app.post("/made")
def made(tasks: BackgroundTasks, session: Session = Depends(get_made)):
    tasks.add_task(send_email, session)  # finds SAFE009


@app.post("/at-once")
def made_at_once(
    tasks: BackgroundTasks, session: Session = Depends(session_dependency(engine))
):
    tasks.add_task(send_email, session)  # finds SAFE009


@app.post("/async")
async def by_async_alias(tasks: BackgroundTasks, session: AsyncSessionDep):
    tasks.add_task(recount, session)  # finds SAFE009
    asyncio.create_task(recount(session))  # finds SAFE009


@app.post("/awaited")
async def awaited(session: AsyncSessionDep):
    await asyncio.create_task(recount(session))


@app.post("/either")
def decided_elsewhere(tasks: BackgroundTasks, session: Session = Depends(get_either)):
    tasks.add_task(send_email, session)


@app.post("/ids")
def pass_an_id(tasks: BackgroundTasks, session: SessionDep):
    tasks.add_task(print, session.info["id"])


@app.post("/scope")
def in_a_scope(tasks: BackgroundTasks):
    with session_scope(engine) as session:
        tasks.add_task(send_email, session)  # finds SAFE009


@app.post("/async-scope")
async def in_an_async_scope(tasks: BackgroundTasks):
    async with async_session_scope(make) as session:
        asyncio.create_task(recount(session))
    tasks.add_task(recount, session)  # finds SAFE009


@app.post("/block")
def in_a_block(tasks: BackgroundTasks):
    with Session(engine) as session:
        tasks.add_task(send_email, session)  # finds SAFE009


@app.post("/blocks")
def in_one_of_two(tasks: BackgroundTasks):
    with session_scope(engine) as session:
        session.add(object())
    session = Session(engine)
    tasks.add_task(send_email, session)


def in_a_generator(tasks: BackgroundTasks):
    with session_scope(engine) as session:
        tasks.add_task(send_email, session)
        yield session


def create_app(engine):
    get_local: object = session_dependency(engine)
    inner = FastAPI()

    @inner.post("/")
    def create(tasks: BackgroundTasks, session: Session = Depends(get_local)):
        tasks.add_task(send_email, session)  # finds SAFE009

    return inner
