"""A SQLModel service whose get_session is decorated, for its scripts, and depended on.

A fault: FastAPI passes on the context manager itself, or fails on it.
"""

from contextlib import contextmanager

from fastapi import Depends, FastAPI
from sqlmodel import Session, create_engine

app = FastAPI()
engine = create_engine("sqlite:///app.db")


@contextmanager
def get_session():
    session = Session(engine)
    try:
        yield session
    except Exception:
        session.rollback()
        raise
    finally:
        session.close()


def get_plain_session():
    with Session(engine) as session:
        yield session


scripted = contextmanager(get_plain_session)


@app.get("/")
def read(session: Session = Depends(get_session)):  # finds SAFE011
    ...


@app.get("/scripted")
def read_scripted(session: Session = Depends(scripted)):  # finds SAFE011
    ...


@app.get("/plain")
def read_plain(session: Session = Depends(get_plain_session)): ...
