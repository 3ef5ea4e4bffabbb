"""The tables of the tests."""

from sqlalchemy import Engine, ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    """A row with a unique text, so that a flush can be made to fail."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(unique=True)


class Reply(Base):
    """A row whose missing note is found out at COMMIT, and not before."""

    __tablename__ = "reply"

    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(
        ForeignKey("note.id", deferrable=True, initially="DEFERRED")
    )


def stored(engine: Engine) -> list[str]:
    """Return the texts that a connection of its own finds committed."""
    with engine.connect() as connection:
        return list(connection.scalars(select(Note.text).order_by(Note.text)))
