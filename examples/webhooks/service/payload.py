"""What a delivery says, or what is wrong with it."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

STATUS_AFTER = {
    "ACTOR.RUN.SUCCEEDED": "SUCCEEDED",
    "ACTOR.RUN.FAILED": "FAILED",
    "ACTOR.RUN.TIMED_OUT": "TIMED-OUT",
    "ACTOR.RUN.ABORTED": "ABORTED",
}


class BadDelivery(ValueError):
    """The delivery cannot be taken in; the message says why, to the sender."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("The moment is out of range") from None


Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,64}$")]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True)


class EventData(_Part):
    actor_id: Id
    actor_run_id: Id


class Resource(_Part):
    id: Id
    act_id: Id
    status: Literal["SUCCEEDED", "FAILED", "TIMED-OUT", "ABORTED"]
    started_at: Moment
    finished_at: Moment


class Delivery(_Part):
    user_id: Id
    created_at: Moment
    event_type: Literal[
        "ACTOR.RUN.SUCCEEDED",
        "ACTOR.RUN.FAILED",
        "ACTOR.RUN.TIMED_OUT",
        "ACTOR.RUN.ABORTED",
    ]
    event_data: EventData
    resource: Resource

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        run = self.resource
        if run.status != STATUS_AFTER[self.event_type]:
            raise ValueError(f"A run is not {run.status} after {self.event_type}")
        if run.id != self.event_data.actor_run_id:
            raise ValueError("resource.id is not eventData.actorRunId")
        if run.act_id != self.event_data.actor_id:
            raise ValueError("resource.actId is not eventData.actorId")
        if run.finished_at < run.started_at:
            raise ValueError("resource.finishedAt is before resource.startedAt")
        return self


def parse(body: bytes) -> Delivery:
    """Return the delivery in `body`, or raise `BadDelivery`."""
    try:
        return Delivery.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise BadDelivery("; ".join(map(_sentence, problems))) from None


def _sentence(problem: ErrorDetails) -> str:
    field = ".".join(map(str, problem["loc"]))
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
