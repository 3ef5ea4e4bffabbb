"""The table that the kit writes to."""

from uuid import uuid4

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Row(Base):
    """A row with a unique text, so that a flush can be made to fail."""

    # Of this process alone: several may use one database, as with pytest-xdist.
    __tablename__ = f"safesession_verify_{uuid4().hex[:12]}"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(100), unique=True)
