"""Store what a delivery tells, or why it was rejected."""

from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from .models import Event, RejectedDelivery, Run
from .payload import BadDelivery, Delivery

KEPT_OF_A_BODY = 10_000


def store(session: Session, delivery: Delivery) -> bool:
    """Store the run and the event; return False for an event that is stored already.

    Raise `BadDelivery` where the delivery contradicts what is stored. Something may be
    written by then: call it in a scope of its own.
    """
    told = Run(
        id=delivery.resource.id,
        actor_id=delivery.resource.act_id,
        status=delivery.resource.status,
        started_at=delivery.resource.started_at,
        finished_at=delivery.resource.finished_at,
    )
    # Written first and asked afterwards: of two deliveries of one run that arrive
    # together, the second waits here until the first is committed.
    session.exec(insert(Run).values(told.model_dump()).on_conflict_do_nothing())
    event = {
        "run_id": told.id,
        "type": delivery.event_type,
        "created_at": delivery.created_at,
    }
    written = session.exec(insert(Event).values(event).on_conflict_do_nothing())
    if written.rowcount == 0:
        return False
    run = session.get_one(Run, told.id)
    if run.actor_id != told.actor_id:
        raise BadDelivery(f"Run {told.id} is not a run of actor {told.actor_id}")
    if run.finished_at < told.finished_at:
        run.sqlmodel_update(told.model_dump())
    return True


def reject(session: Session, body: bytes, problem: BadDelivery) -> None:
    """Keep the rejected delivery for the record."""
    kept = body[:KEPT_OF_A_BODY]
    session.add(RejectedDelivery(reason=str(problem), body=kept))
    session.flush()  # Nothing is answered 400 that could not be written down.
