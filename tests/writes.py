"""Writes for a read-only session to refuse: by what SQLAlchemy sees, and in text."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.schema import DropTable

from models import Note, Reply

Write = Callable[[Session], object]


def flush(session: Session) -> None:
    session.add(Note(text="written"))
    session.flush()


def flush_by_a_query(session: Session) -> None:
    session.add(Note(text="written"))
    session.scalars(select(Note))


def forget_to_flush(session: Session) -> None:
    session.add(Note(text="written"))


def change(session: Session) -> None:
    session.scalars(select(Note)).one().text = "written"


def remove(session: Session) -> None:
    session.delete(session.scalars(select(Note)).one())


def execute(statement: Any) -> Write:
    return lambda session: session.execute(statement)


GUARDED: dict[str, tuple[Write, str]] = {
    "flush": (flush, "a flush of Note"),
    "autoflush": (flush_by_a_query, "a flush of Note"),
    "at the end": (forget_to_flush, "a flush of Note"),
    "change": (change, "a flush of Note"),
    "remove": (remove, "a flush of Note"),
    "insert": (execute(insert(Note).values(text="written")), "INSERT"),
    "update": (execute(update(Note).values(text="written")), "UPDATE"),
    "delete": (execute(delete(Note)), "DELETE"),
    "on the connection": (
        lambda session: session.connection().execute(delete(Note)),
        "DELETE",
    ),
    "in bulk": (
        lambda session: session.bulk_save_objects([Note(text="written")]),
        "INSERT",
    ),
    "definition": (execute(DropTable(Reply.__table__)), "DROP TABLE"),  # type: ignore[arg-type]
}
IN_TEXT = {
    "insert": "INSERT INTO note (text) VALUES ('written')",
    "update": "UPDATE note SET text = 'written'",
    "delete": "DELETE FROM note",
    "create": "CREATE TABLE written (id INTEGER)",
}
