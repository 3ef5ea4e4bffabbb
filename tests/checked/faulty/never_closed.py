"""Dependencies that return their session.

A fault: it is no generator, so that nothing of it runs after the endpoint, and nobody
closes the session. What has been closed opens again with its first use. The pool runs
dry where the garbage collector does not come by in time.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, Request
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlmodel import Session
from sqlalchemy.orm import sessionmaker

app = FastAPI()
engine = create_engine("sqlite:///app.db")
SessionLocal = sessionmaker(engine)
async_session = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///app.db"))


def get_db():
    return SessionLocal()  # finds SAFE013


def get_session():
    session = Session(engine)
    try:
        session.execute(text("SET search_path TO app"))
        return session  # finds SAFE013
    finally:
        session.close()


async def get_async_session():
    async with async_session() as session:
        return session  # finds SAFE013


SessionDep = Annotated[Session, Depends(get_session)]


@app.get("/orders")
def read_orders(db=Depends(get_db)):
    return db.scalars(select(1)).all()


@app.get("/orders/all")
def read_all_orders(db=Depends(get_db)):
    """Be told once, where the session is returned."""
    return db.scalars(select(1)).all()


@app.get("/bills")
def read_bills(session: SessionDep):
    return session.exec(select(1)).all()


@app.get("/bills/all")
def read_all_bills(session: SessionDep):
    return session.query(object).filter_by(id=1).all()


@app.get("/letters")
async def read_letters(session: AsyncSession = Depends(get_async_session)):
    return await count(session)


async def count(session: AsyncSession):
    return await session.scalar(select(1))


def get_closed_by_all():
    return SessionLocal()


@app.get("/closed")
def read_and_close(session: Session = Depends(get_closed_by_all)):
    try:
        return session.scalar(select(1))
    finally:
        session.close()


@app.get("/entered")
def read_in_a_block(session: Session = Depends(get_closed_by_all)):
    with session:
        return session.scalar(select(1))


@app.get("/committed")
def write_and_commit(session: Session = Depends(get_closed_by_all)):
    session.add(object())
    session.commit()


def get_unread():
    return SessionLocal()


@app.get("/unread")
def prepare_a_query(session: Session = Depends(get_unread)):
    """Open no connection, as nothing is executed."""
    session.query(object).filter_by(id=1)


def get_closed_by_another():
    return SessionLocal()


def closing(session: Session = Depends(get_closed_by_another)):
    yield
    session.close()


@app.get("/by-another", dependencies=[Depends(closing)])
def read_what_another_closes(session: Session = Depends(get_closed_by_another)):
    return session.scalar(select(1))


def get_of_the_request(request: Request):
    request.state.session = SessionLocal()
    return request.state.session


def get_kept_by_the_request(request: Request):
    session = SessionLocal()
    request.state.session = session
    return session


def get_one_of_two(request: Request):
    session = SessionLocal()
    if request.url.path == "/":
        session = request.state.session
    return session


def get_in_part(request: Request):
    if request.url.path == "/":
        return request.state.session
    return SessionLocal()


def get_of_a_parameter(session: Session):
    return session


@app.get("/requests")
def read_what_a_middleware_closes(
    one=Depends(get_of_the_request),
    two=Depends(get_kept_by_the_request),
    three=Depends(get_one_of_two),
    four=Depends(get_in_part),
    five=Depends(get_of_a_parameter),
):
    return [session.scalar(select(1)) for session in (one, two, three, four, five)]


@app.get("/each")
def read_of_each(
    one=Depends(get_of_the_request),
    two=Depends(get_kept_by_the_request),
    three=Depends(get_one_of_two),
    four=Depends(get_in_part),
    five=Depends(get_of_a_parameter),
):
    one.scalar(select(1))
    two.scalar(select(1))
    three.scalar(select(1))
    four.scalar(select(1))
    five.scalar(select(1))
