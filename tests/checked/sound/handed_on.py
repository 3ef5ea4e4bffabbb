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


class Service:
    def __init__(self, session: Session):
        self.session = session

    def save(self):
        self.session.commit()


def get_plain():
    with Session(engine) as session:
        yield session


def get_service(session: Session = Depends(get_plain)):
    return Service(session)


@app.post("/service")
def create_by_a_service(
    row: dict,
    session: Session = Depends(get_plain),
    service: Service = Depends(get_service),
):
    session.add(row)
    service.save()


def kept(request: Request):
    with Session(engine) as session:
        request.state.session = session
        yield session


def passed_on():
    for session in kept(None):
        yield session


def yielded_on():
    yield from yielded_on()
    yield from passed_on()


@app.post("/passed-on")
def create_passed_on(row: dict, session: Session = Depends(yielded_on)):
    session.add(row)


def get_committed():
    with Session(engine) as session:
        yield session


def commit_at_the_end(session: Session = Depends(get_committed, scope="function")):
    yield
    session.commit()


@app.post("/end", dependencies=[Depends(commit_at_the_end, scope="function")])
def create_to_be_committed(row: dict, session: Session = Depends(get_committed)):
    session.add(row)
