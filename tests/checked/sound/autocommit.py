"""A service whose engine commits each statement: a flush is all that it needs."""

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

app = FastAPI()
engine = create_engine("sqlite:///app.db", isolation_level="AUTOCOMMIT")


def get_session():
    with Session(engine) as session:
        yield session


@app.post("/")
def create(row: dict, session: Session = Depends(get_session)):
    session.add(row)
    session.flush()
