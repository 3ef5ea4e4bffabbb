"""Deliveries to send: good ones, and bad ones of several kinds."""

import json
from random import Random
from typing import Any

TYPES = {
    "ACTOR.RUN.SUCCEEDED": "SUCCEEDED",
    "ACTOR.RUN.FAILED": "FAILED",
    "ACTOR.RUN.TIMED_OUT": "TIMED-OUT",
    "ACTOR.RUN.ABORTED": "ABORTED",
}


def payload(number: int, actor: str = "scraper", minute: int = 30) -> dict[str, Any]:
    """Return what the platform sends when run `number` ends in that minute."""
    event_type, status = list(TYPES.items())[number % len(TYPES)]
    ended = f"2026-11-01T10:{minute:02}:00.000Z"
    return {
        "userId": "u7",
        "createdAt": ended,
        "eventType": event_type,
        "eventData": {"actorId": actor, "actorRunId": f"run{number}"},
        "resource": {
            "id": f"run{number}",
            "actId": actor,
            "status": status,
            "startedAt": "2026-11-01T10:00:00.000Z",
            "finishedAt": ended,
            "buildNumber": "0.0.1",
        },
    }


def good(number: int) -> bytes:
    return json.dumps(payload(number)).encode()


def bad(number: int) -> bytes:
    """Return a delivery of run `number` with one thing wrong, of each kind in turn."""
    delivery = payload(number)
    match number % 6:
        case 0:
            del delivery["eventType"]
        case 1:
            del delivery["resource"]["status"]
        case 2:
            delivery["eventType"] = "ACTOR.RUN.CREATED"
        case 3:
            delivery["resource"]["startedAt"] = 7
        case 4:
            delivery["eventData"]["actorRunId"] = "another"
        case 5:
            return good(number)[:-1]
    return json.dumps(delivery).encode()


def mixed(bodies: list[bytes]) -> list[bytes]:
    """Return the bodies in an order without order, the same each time."""
    return Random(1).sample(bodies, k=len(bodies))  # noqa: S311
