"""A service with a sync and an async endpoint."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from safesession import session_scope
from safesession.fastapi import async_session_dependency, session_dependency

database = os.environ.get("NOTES_DATABASE", "notes.db")
engine = create_engine(f"sqlite:///{database}")
async_engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
get_session = session_dependency(engine)
get_async_session = async_session_dependency(async_engine)

app = FastAPI()


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


@app.post("/notes", status_code=201)
def add(text: str, session: Annotated[Session, Depends(get_session)]) -> int:
    note = Note(text=text)
    session.add(note)
    session.flush()
    if not text:
        raise HTTPException(400, "a note has a text")
    return note.id


@app.get("/count")
async def count(session: Annotated[AsyncSession, Depends(get_async_session)]) -> int:
    return await session.scalar(select(func.count(Note.id))) or 0


def add_all(bind: object, texts: list[str]) -> None:
    """Add notes, each in a transaction of its own."""
    for text in texts:
        with session_scope(bind) as session:
            session.add(Note(text=text))
