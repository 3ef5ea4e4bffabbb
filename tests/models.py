"""The tables of the tests."""

from typing import Any

from sqlalchemy import Engine, ForeignKey, ForeignKeyConstraint, String, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    """A row with a unique text, so that a flush can be made to fail."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    # Which MariaDB has no index on without a length.
    text: Mapped[str] = mapped_column(String(100), unique=True)


class Reply(Base):
    """A row whose missing note is found out at COMMIT, and not before.

    But on MariaDB, which has no constraints that are deferred, at once.
    """

    __tablename__ = "reply"

    id: Mapped[int] = mapped_column(primary_key=True)
    note_id: Mapped[int] = mapped_column(
        ForeignKey("note.id", deferrable=True, initially="DEFERRED")
    )


@compiles(ForeignKeyConstraint, "mysql", "mariadb")
def without_deferral(constraint: Any, compiler: Any, **options: Any) -> str:
    created: str = compiler.visit_foreign_key_constraint(constraint, **options)
    return created.partition(" DEFERRABLE")[0]


def stored(engine: Engine) -> list[str]:
    """Return the texts that a connection of its own finds committed."""
    with engine.connect() as connection:
        return list(connection.scalars(select(Note.text).order_by(Note.text)))
