"""Sessions that nobody closes by itself, as all are closed at once."""

from fastapi import Depends, FastAPI, Request
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, close_all_sessions

app = FastAPI()
engine = create_engine("sqlite:///app.db")


def get_session():
    return Session(engine)


@app.get("/")
def read(session: Session = Depends(get_session)):
    return session.scalar(select(1))


@app.middleware("http")
async def close(request: Request, call_next):
    response = await call_next(request)
    close_all_sessions()
    return response
