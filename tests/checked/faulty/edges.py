"""Shapes on the edge of a rule, on the side where something goes wrong.

Faults of the kinds that the other files explain.
"""

from contextlib import contextmanager

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

app = FastAPI()
engine = create_engine("sqlite:///app.db")
async_session = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))


def looped_and_depended_on():
    for _ in range(1):
        with Session(engine) as session:
            try:
                yield session
            except ValueError:  # finds SAFE002
                break


@app.post("/")
def create(session: Session = Depends(looped_and_depended_on)): ...


async def get_session():
    async with async_session() as session:
        yield session


async def passed_on():
    async for session in get_session():  # finds SAFE008
        try:
            yield session
        except Exception:  # finds SAFE002
            break


@contextmanager
def bare():
    with Session(engine) as session:
        try:
            yield session
        except:  # finds SAFE002
            session.rollback()


@contextmanager
def told_to_others():
    if engine is None:
        raise RuntimeError
    with Session(engine) as session:
        try:
            yield session
        except Exception:  # finds SAFE002
            count_one_more()
            session.rollback()


def count_one_more() -> None: ...


@contextmanager
def not_caught_in_else():
    session = Session(engine)
    try:
        session.connection()
    except:
        session.rollback()
        raise
    else:
        yield session
    finally:
        session.commit()  # finds SAFE004


@contextmanager
def caught_and_not_rolled_back():
    session = Session(engine)
    try:
        yield session
    except BaseException:
        print("raised")
        raise
    finally:
        session.commit()  # finds SAFE004


def closed_and_logged():
    session = Session(engine)
    try:
        yield session
    finally:
        session.close()
    print("closed")
    session.close()
    session.commit()  # finds SAFE006


def committed_again_in_each():
    with Session(engine) as session:
        yield session
    session.commit()  # finds SAFE006
    session.commit()


def lambda_of_something_else():
    next(get_plain())  # finds SAFE008


def get_plain():
    with Session(engine) as session, open("log") as log:
        yield session


def closed_in_a_block(lock):
    with lock:
        session = Session(engine)
        try:
            yield session
        finally:
            session.close()
    session.commit()  # finds SAFE006


def used_before_the_close():
    session = Session(engine)
    yield session
    session.flush()
    session.close()
    print("closed")
    session.commit()  # finds SAFE006


def bare_and_replaced():
    with Session(engine) as session:
        try:
            yield session
        except:
            raise RuntimeError("the database failed")  # finds SAFE012


def taken_in_a_block(lock):
    with lock, open("log"):
        next(get_plain())  # finds SAFE008
