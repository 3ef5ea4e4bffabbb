"""What the service stores."""

from datetime import UTC, datetime

from sqlmodel import Field, SQLModel, UniqueConstraint


def utc_now() -> datetime:
    return datetime.now(UTC)


class Run(SQLModel, table=True):
    """A run of an actor, as the latest of its events tells it."""

    id: str = Field(primary_key=True)
    actor_id: str
    status: str
    started_at: datetime
    finished_at: datetime


class Event(SQLModel, table=True):
    """Something that happened to a run, stored once however often it is delivered.

    The platform gives events no id, and a run that is resurrected ends twice. So what
    happened, to which run and when, is what identifies an event.
    """

    __table_args__ = (UniqueConstraint("run_id", "type", "created_at"),)

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(foreign_key="run.id")
    type: str
    created_at: datetime


class RejectedDelivery(SQLModel, table=True):
    """A delivery that was answered 400, for whoever has to find out why."""

    __tablename__ = "rejected_delivery"

    id: int | None = Field(default=None, primary_key=True)
    received_at: datetime = Field(default_factory=utc_now)
    reason: str
    body: bytes
