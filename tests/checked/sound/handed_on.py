"""Sessions that somebody besides the endpoint may commit."""

from contextvars import ContextVar

from fastapi import Depends, FastAPI, Request
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

app = FastAPI()
engine = create_engine("sqlite:///app.db")
current = ContextVar("current")


def get_session(request: Request):
    with Session(engine) as session:
        request.state.session = session
        yield session


def get_current():
    with Session(engine) as session:
        current.set(session)
        yield session


def get_shared():
    with Session(engine) as session:
        yield session


def unit_of_work(session: Session = Depends(get_shared)):
    yield session
    session.commit()


@app.post("/")
def create(row: dict, session: Session = Depends(get_session)):
    session.add(row)


@app.post("/current")
def create_current(row: dict, session: Session = Depends(get_current)):
    session.add(row)


@app.post("/shared", dependencies=[Depends(unit_of_work, scope="function")])
def create_shared(row: dict, session: Session = Depends(get_shared)):
    session.add(row)


@app.post("/twice")
def create_twice(row: dict, session: Session = Depends(unknown)):
    session.add(row)
