"""Streams of a session that may be opened again, or be had by others."""

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from safesession.fastapi import session_dependency

app = FastAPI()
make = sessionmaker(create_engine("sqlite:///app.db"), close_resets_only=True)
get_session = session_dependency(make)
Registry = scoped_session(make)


def get_registered():
    session: Session = Registry()
    try:
        yield session
    finally:
        session.close()


@app.get("/")
def read(session: Session = Depends(get_session)):
    def lines():
        with session:
            yield str(session.scalar(select(1)))

    return StreamingResponse(lines())


@app.get("/registered")
def of_a_registry(session: Session = Depends(get_registered, scope="function")):
    def lines():
        yield str(session.scalar(select(1)))

    return StreamingResponse(lines())
