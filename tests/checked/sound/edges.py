"""Shapes on the edge of a rule, on the side where nothing goes wrong for certain."""

import asyncio
from contextlib import contextmanager
from functools import partial

from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

app = FastAPI()
engine = create_engine("sqlite:///app.db")
factory = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))


async def never_closed():
    session = factory()
    try:
        await session.commit()
    except Exception:
        await session.rollback()


async def not_ended_by_it():
    session = factory()
    try:
        await session.commit()
    except Exception:
        await asyncio.sleep(0)
    await session.close()


@contextmanager
def translated():
    with Session(engine) as session:
        try:
            yield session
        except Exception as error:
            raise RuntimeError from error


def raised_by_name():
    with Session(engine) as session:
        try:
            yield session
        except Exception as error:
            session.rollback()
            raise error


def raised_in_a_branch():
    with Session(engine) as session:
        try:
            yield session
        except Exception as error:
            session.rollback()
            if engine:
                raise RuntimeError from error
            raise


def raised_and_caught():
    with Session(engine) as session:
        try:
            yield session
        except Exception:
            try:
                raise RuntimeError
            except RuntimeError:
                session.rollback()
            raise


@contextmanager
def handed_over_in_else():
    session = Session(engine)
    try:
        session.connection()
    except Exception:
        session.rollback()
    else:
        yield session


@contextmanager
def handed_over_in_finally():
    try:
        print("prepared")
    finally:
        with Session(engine) as session:
            yield session
            session.commit()


@contextmanager
def everything_is_rolled_back():
    session = Session(engine)
    try:
        yield session
    except BaseException:
        session.rollback()
        raise
    finally:
        session.commit()
        session.close()


@contextmanager
def rolled_back_in_finally():
    session = Session(engine)
    try:
        yield session
    finally:
        session.rollback()
        session.commit()


def committed_before_the_close():
    session = Session(engine)
    yield session
    session.commit()
    session.close()


def committed_as_it_is_left():
    with sessionmaker(engine).begin() as session:
        yield session
    session.commit()


def committed_where_a_branch_says():
    with Session(engine) as session:
        yield session
    if engine:
        session.commit()
    session.commit()


def not_managed():
    with Session(engine) as session:
        yield session


managed = contextmanager(not_managed)


def entered() -> None:
    with managed() as session:
        session.execute("SELECT 1")
    next(iter([1]))
    next(managed())
    for session in managed():
        return


def looped() -> None:
    for session in not_managed():
        session.execute("SELECT 1")


def passed_on():
    for session in not_managed():
        yield session


async def work(session: Session, other: object = None) -> None: ...


@app.get("/tasks")
async def give_nothing(tasks: BackgroundTasks, session: Session = Depends(not_managed)):
    tasks.add_task(lambda: print(tasks))
    tasks.add_task(partial(print, tasks))
    asyncio.create_task(work(None))
    asyncio.create_task(app)
    task = asyncio.create_task(work(session))
    other = asyncio.create_task(work(session))
    await asyncio.gather(task, other)


@app.get("/other-tasks")
async def give_to_others(
    queue, tasks: BackgroundTasks, session: Session = Depends(not_managed)
):
    queue.add_task(work, session)
    queue.run(work(session))
    await queue.run(work(session))


def committing():
    with Session(engine) as session:
        yield session
        session.commit()


@app.post("/own-commit")
def commit_by_itself(session: Session = Depends(committing)) -> None:
    session.add(app)
    session.commit()
