"""Endpoints on a dependency that commits late, where no write is seen to come late."""

import asyncio
from functools import wraps
from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket
from fastapi.responses import StreamingResponse
from outside import audit
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")


def get_session():
    with Session(engine) as session:
        yield session
        session.commit()


SessionDep = Annotated[Session, Depends(get_session)]
router = APIRouter(dependencies=[Depends(get_session)])


class Order: ...


@router.post("/search")
def only_reads(session: SessionDep):
    statement = select(Order)
    return session.execute(statement).scalars().all()


@router.post("/query")
def only_queries(session: SessionDep):
    query = session.query(Order)
    return query.all(), session.query(Order).all(), session.query(Order)


@router.post("/nothing")
def takes_it_alone(session: SessionDep): ...


@router.get("/stream")
def streams(session: SessionDep):
    session.add(Order())
    return StreamingResponse(session.scalars(select(Order)))


@router.get("/events")
def yields(session: SessionDep):
    session.add(Order())
    yield session.get(Order, 1)


@router.websocket("/ws")
def socket(ws: WebSocket, session: SessionDep):
    session.add(Order())


@router.post("/committed")
def commits(session: SessionDep):
    session.add(Order())
    session.commit()


@router.post("/rolled-back")
def tries_out(session: SessionDep):
    session.add(Order())
    session.flush()
    session.rollback()


@router.post("/committed-by-another")
def has_it_committed(session: SessionDep):
    session.add(Order())
    save(session)


def save(session: Session):
    session.commit()


@router.post("/outside")
def gives_it_outside(session: SessionDep):
    session.add(Order())
    audit(session)


@router.post("/starred")
def gives_it_somehow(session: SessionDep, *more):
    session.add(Order())
    takes_two(*more, session)


@router.post("/by-some-name")
def gives_it_by_some_name(session: SessionDep):
    session.add(Order())
    takes_anything(other=session)


def takes_two(one, session=None): ...


def takes_anything(session=None, **other): ...


@router.post("/later")
async def writes_in_a_task(session: SessionDep):
    task = asyncio.create_task(add_later(session))
    await task


async def add_later(session: Session):
    session.add(Order())


@router.post("/never")
def never_awaits(session: SessionDep):
    session.add(Order())
    add_later(session)


@router.post("/nested")
def in_a_function_of_its_own(session: SessionDep):
    session.add(Order())

    def finish():
        session.commit()

    finish()


@router.post("/nested-write")
def has_a_write_that_is_not_called(session: SessionDep):
    def save():
        session.add(Order())

    router.on_shutdown.append(save)


@router.post("/attribute")
def by_an_attribute(session: SessionDep):
    session.add(Order())
    session.info["commit"]()


@router.post("/returned")
def returned(session: SessionDep):
    session.add(Order())
    return session


@router.post("/ended")
def ended_by_text(session: SessionDep, sql: str):
    session.execute(text("INSERT INTO orders VALUES (1)"))
    session.execute(text("COMMIT"))


@router.post("/some")
def by_some_text(session: SessionDep, sql: str):
    session.add(Order())
    session.execute(text(sql))


@router.post("/statement")
def by_some_statement(session: SessionDep, statement):
    session.execute(statement)
    session.execute()
    session.execute(Order.__table__.delete())
    session.execute(build().compile())
    session.execute(build("x"))


def build(*parts): ...


def transactional(function):
    @wraps(function)
    def run(session, **others):
        function(session=session, **others)
        session.commit()

    return run


@router.post("/decorated")
@transactional
def decorated(session: SessionDep):
    session.add(Order())


@transactional
def save_in_time(session: Session):
    session.add(Order())


@router.post("/decorated-function")
def calls_what_is_decorated(session: SessionDep):
    session.add(Order())
    save_in_time(session)


class Repository:
    def __init__(self, session: SessionDep):
        self.session = session

    def save(self, order: Order):
        self.session.add(order)
        self.session.commit()


@router.post("/repository")
def by_a_repository(session: SessionDep, repository: Repository = Depends()):
    session.add(Order())
    repository.save(Order())


def get_repository(session: SessionDep):
    return Repository(session)


@router.post("/written-by-others")
def by_a_dependency(repository: Annotated[Repository, Depends(get_repository)]):
    repository.save(Order())


def get_current(request):
    with Session(engine) as session:
        request.state.session = session
        yield session
        session.commit()


@router.post("/state")
def committed_by_its_request(session: Session = Depends(get_current)):
    session.add(Order())


@router.post("/function")
def committed_in_time(session: Session = Depends(get_session, scope="function")):
    session.add(Order())


def get_shared():
    with Session(engine) as session:
        yield session


def unit_of_work(session: Session = Depends(get_shared)):
    yield session
    session.commit()


@router.post("/unit-of-work")
def of_a_unit_of_work(session: Session = Depends(unit_of_work)):
    """Have the session of another generator, which may be committed by others."""
    session.add(Order())


def get_session_again():
    session = get_session_again()
    yield session
    session.commit()
    session.info["committed"] = True


@router.post("/again")
def of_one_that_calls_itself(session: Session = Depends(get_session_again)):
    session.add(Order())
