"""Endpoints of each kind.

A fault where it is found: the client is answered before the commit, which may fail.
"""

from fastapi import APIRouter, BackgroundTasks, Depends, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from app.begun import get_begun, get_begun_inside, get_read_only
from app.db import get_translated
from app.deps import ReadDep, SessionDep, get_own_session, get_session

from . import crud, deps

router = APIRouter(dependencies=[Depends(get_begun)])


@router.post("/")
async def write(session: AsyncSession = Depends(get_session)):  # finds SAFE010
    session.add(object())


@router.put("/")
async def put(session: AsyncSession = Depends(get_begun_inside)):  # finds SAFE010
    await crud.create(session)


@router.post("/search")
async def search(session: ReadDep):
    return await crud.find(session)


@router.post("/alias")
async def by_alias(session: SessionDep):
    await crud.create(session=session)


@router.post("/module")
async def by_module(tasks: BackgroundTasks, session: deps.OwnDep):
    tasks.add_task(crud.create, session)  # finds SAFE009


@router.post("/translated")
async def translate(session: AsyncSession = Depends(get_translated)): ...


@router.patch("/")
async def patch(session: AsyncSession = Depends(get_read_only)): ...


@router.get("/")
async def read(session: AsyncSession = Depends(get_session)): ...


@router.websocket("/ws")
async def talk(ws: WebSocket, session: AsyncSession = Depends(get_session)): ...


@router.post("/stream")
async def stream(session: AsyncSession = Depends(get_session)):
    return StreamingResponse(await session.stream("SELECT 1"))


@router.post("/task")
async def queue(tasks: BackgroundTasks, session: SessionDep):
    tasks.add_task(print, session)  # finds SAFE009


def get_repository(session: AsyncSession = Depends(get_session)):
    return session


@router.post("/own")
def by_own(tasks: BackgroundTasks, session: AsyncSession = Depends(get_own_session)):
    tasks.add_task(crud.create, session)
