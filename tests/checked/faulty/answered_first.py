"""Endpoints whose writes are committed by their dependency, after the response.

A fault: the client has its 201, and then the commit fails, or has not been made when it
asks for what it created. It is found where a write is seen, of the endpoint or of a
function that it gives its session to, and where nobody commits before.
"""

from typing import Annotated

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, delete, insert, select, text, update
from sqlalchemy.orm import Session, sessionmaker

app = FastAPI()
SessionLocal = sessionmaker(create_engine("sqlite:///app.db"))


class Order: ...


def get_session():
    with SessionLocal() as session:
        try:
            yield session
            session.commit()
        except Exception:
            session.rollback()
            raise


def get_begun():
    with SessionLocal.begin() as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]  # finds SAFE010


@app.post("/orders")
def create(session: SessionDep):
    session.add(Order())
    session.flush()


@app.post("/orders/again")
def create_again(session: SessionDep):
    """Be told by the alias, once."""
    session.add(Order())


@app.put("/inserted")
def insert_order(session: Session = Depends(get_session)):  # finds SAFE010
    session.execute(insert(Order).values(id=1).returning(Order))


@app.patch("/updated")
def update_order(session: Session = Depends(get_session)):  # finds SAFE010
    statement = update(Order).where(Order.id == 1)
    return session.scalars(statement).all()


@app.delete("/deleted")
@app.delete("/removed")
def delete_order(session: Session = Depends(get_begun)):  # finds SAFE010
    session.execute(delete(Order))


@app.post("/text")
def write_text(session: Session = Depends(get_session)):  # finds SAFE010
    session.execute(text("INSERT INTO orders VALUES (1)"))
    return session.scalar(text("SELECT 1"))


@app.post("/query")
def delete_by_query(session: Session = Depends(get_session)):  # finds SAFE010
    session.query(Order).filter_by(id=1).delete()


@app.get("/visits")
def count_a_visit(session: Session = Depends(get_session)):  # finds SAFE010
    session.merge(Order())


@app.post("/functions")
def by_functions(session: Session = Depends(get_session)):  # finds SAFE010
    find(session, 1)
    return save(Order(), session=session)


@app.post("/positions")
def by_position(session: Session = Depends(get_session)):  # finds SAFE010
    keep(Order(), session)


@app.post("/async-functions")
async def by_async_functions(
    session: Session = Depends(get_session),  # finds SAFE010
):
    return await save_later(session)


@app.post("/caught")
def rolled_back_where_it_fails(
    session: Session = Depends(get_session),  # finds SAFE010
):
    try:
        session.add(Order())
    except ValueError:
        session.rollback()
        raise


def find(session: Session, key: int, *, depth: int = 0):
    if depth < 3:
        find(session, key, depth=depth + 1)
    return session.get(Order, key)


def keep(order: Order, session: Session):
    save(order, session=session)


def save(order: Order, *, session: Session):
    session.add(order)


async def save_later(session: Session):
    session.add(Order())


def current_user(session: Session = Depends(get_session)):
    return session.scalar(select(Order))


@app.post("/user")
def with_a_user(
    session: Session = Depends(get_session),  # finds SAFE010
    user=Depends(current_user),
):
    session.add(Order())


@app.post("/read")
def search(session: Session = Depends(get_session)):
    return session.scalars(select(Order)).all()
