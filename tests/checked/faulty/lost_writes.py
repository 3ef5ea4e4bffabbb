"""Endpoints that write to a session that only closes.

A fault: nobody commits, and nobody else has the session. The client has its 201, and
the close rolls everything back. Where the session is given to somebody, who may commit,
nothing is said.
"""

from typing import Annotated

from fastapi import APIRouter, Depends
from sqlmodel import Session, SQLModel, create_engine

router = APIRouter()
engine = create_engine("sqlite:///app.db")


class Hero(SQLModel, table=True): ...


def get_session():
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


@router.post("/heroes", status_code=201)
def create_hero(hero: Hero, session: SessionDep):
    session.add(hero)  # finds SAFE005
    session.flush()
    return hero


@router.delete("/heroes/{key}")
def delete_hero(key: int, session: Session = Depends(get_session)):
    hero = session.get(Hero, key)
    session.delete(hero)  # finds SAFE005


@router.post("/heroes/committed")
def create_and_commit(hero: Hero, session: SessionDep):
    session.add(hero)
    session.commit()


@router.post("/heroes/begun")
def create_in_a_transaction(hero: Hero, session: SessionDep):
    with session.begin():
        session.add(hero)


@router.post("/heroes/by-others")
def create_by_others(hero: Hero, session: SessionDep):
    session.add(hero)
    save(session)


def save(session: Session) -> None:
    session.commit()


def not_an_endpoint(hero: Hero, session: SessionDep):
    session.add(hero)


@router.get("/heroes")
def read_heroes(session: SessionDep):
    return session.get(Hero, 1)
