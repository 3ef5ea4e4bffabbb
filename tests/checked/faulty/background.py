"""Endpoints that give the session of the request to work that outlives it.

A fault: the task runs when the client has been answered. By then the session is closed,
or its commit waits for the task, and is a rollback where the task fails.
"""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse

router = APIRouter()
engine = create_engine("sqlite:///app.db")
SCOPE = "function"


def get_db():
    db = Session(engine)
    try:
        yield db
    finally:
        db.close()


def get_committed():
    with Session(engine) as session:
        yield session
        session.commit()


SessionDep = Annotated[Session, Depends(get_db)]
AtFunctionDep = Annotated[Session, Depends(get_db, scope="function")]
AtRequestDep = Annotated[Session, Depends(get_db, scope="request")]
DecidedDep = Annotated[Session, Depends(get_db, scope=SCOPE)]


def send_email(db: Session, address: str) -> None: ...


async def recount(db: Session) -> None: ...


@router.post("/orders")
def create_order(
    address: str, background_tasks: BackgroundTasks, db: Session = Depends(get_db)
):
    background_tasks.add_task(send_email, db, address)  # finds SAFE009


@router.post("/bills")
def create_bill(address: str, tasks: BackgroundTasks, db: SessionDep):
    tasks.add_task(send_email, db=db, address=address)  # finds SAFE009
    tasks.add_task(lambda: send_email(db, address))  # finds SAFE009
    tasks.add_task(partial(send_email, db), address)  # finds SAFE009
    tasks.add_task(send_email, None, db.info["address"])


@router.post("/answers")
def answer(db: SessionDep):
    return JSONResponse({}, background=BackgroundTask(send_email, db))  # finds SAFE009


@router.post("/counts")
async def count(db: SessionDep):
    asyncio.create_task(recount(db))  # finds SAFE009


@router.post("/counts/again")
async def count_and_wait(db: SessionDep):
    task = asyncio.create_task(recount(db))
    await task


@router.post("/counts/at-once")
async def count_at_once(db: SessionDep):
    await asyncio.create_task(recount(db))


@router.post("/ids")
def pass_an_id(order: int, background_tasks: BackgroundTasks, db: SessionDep):
    background_tasks.add_task(send_email, order)


@router.post("/untyped")
async def without_annotations(background_jobs, db: SessionDep):
    background_jobs.add_task(send_email, db)  # finds SAFE009
    task = asyncio.create_task(recount(db))  # finds SAFE009
    print(task)
    await asyncio.sleep(0)


@router.post("/committed")
def committed(tasks: BackgroundTasks, db: Session = Depends(get_committed)):
    tasks.add_task(send_email, db)  # finds SAFE009


@router.post("/at-function")
def at_function(tasks: BackgroundTasks, db: AtFunctionDep):
    tasks.add_task(send_email, db)  # finds SAFE009


@router.post("/at-request")
def at_request(tasks: BackgroundTasks, db: AtRequestDep):
    tasks.add_task(send_email, db)  # finds SAFE009


@router.post("/decided")
def decided_elsewhere(tasks: BackgroundTasks, db: DecidedDep):
    tasks.add_task(send_email, db)  # finds SAFE009
