"""Sessions of a middleware's, of a registry's, and of this library's."""

from fastapi import Depends, FastAPI, Request
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from safesession import session_scope
from safesession.fastapi import session_dependency

app = FastAPI()
engine = create_engine("sqlite:///app.db")
Registry = scoped_session(sessionmaker(engine))
get_session = session_dependency(engine)


def get_db(request: Request) -> Session:
    return request.state.db


def get_registered():
    session = Registry()
    try:
        yield session
    finally:
        Registry.remove()


@app.post("/")
def create(row: dict, session: Session = Depends(get_registered)):
    session.add(row)


@app.post("/safe")
def create_safely(row: dict, session: Session = Depends(get_session)):
    session.add(row)


@app.post("/state")
def create_in_state(row: dict, session: Session = Depends(get_db)):
    session.add(row)


def script() -> None:
    with session_scope(engine) as session:
        session.add(object())
