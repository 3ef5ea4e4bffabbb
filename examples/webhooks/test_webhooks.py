"""One delivery at a time: what is answered, and what is stored."""

import json
from typing import Any

import httpx
import pytest
from deliveries import TYPES, good, payload
from sqlalchemy import event
from under_test import Service

pytestmark = pytest.mark.anyio

FIELDS = [
    ("userId",),
    ("createdAt",),
    ("eventType",),
    ("eventData",),
    ("eventData", "actorId"),
    ("eventData", "actorRunId"),
    ("resource",),
    ("resource", "id"),
    ("resource", "actId"),
    ("resource", "status"),
    ("resource", "startedAt"),
    ("resource", "finishedAt"),
]
NAMES = [".".join(field) for field in FIELDS]


def changed(field: tuple[str, ...], value: Any) -> bytes:
    """Return a delivery with `value` in that field, or without the field for `...`."""
    delivery = part = payload(0)
    for name in field[:-1]:
        part = part[name]
    part[field[-1]] = value
    if value is ...:
        del part[field[-1]]
    return json.dumps(delivery).encode()


async def assert_rejected(
    service: Service, client: httpx.AsyncClient, path: str, body: bytes
) -> str:
    """Check that `body` is answered 400 and kept for the record, and nothing else is.

    Return what the sender is told.
    """
    before = service.counts()

    response = await client.post(path, content=body)

    assert 0 == service.checkouts.out
    assert 400 == response.status_code
    detail = response.json()["detail"]
    before["rejected_delivery"] += 1
    assert before == service.counts()
    assert (detail, body[:10_000]) in service.rows("reason, body", "rejected_delivery")
    return detail


@pytest.mark.parametrize("number", range(4), ids=TYPES)
async def test_stores_an_event_and_its_run(service, client, path, number):
    """Each type of event is answered 201, and is stored with the run it tells of."""
    response = await client.post(path, content=good(number))

    assert 0 == service.checkouts.out
    assert 201 == response.status_code
    event_type, status = list(TYPES.items())[number]
    run = (f"run{number}", "scraper", status)
    assert [run] == service.rows("id, actor_id, status", "run")
    happened = (f"run{number}", event_type, "2026-11-01 10:30:00.000000")
    assert [happened] == service.rows("run_id, type, created_at", "event")


async def test_redelivery(service, client, path):
    """A delivery that comes again is answered 200 and stores nothing new."""
    await client.post(path, content=good(0))

    responses = [await client.post(path, content=good(0)) for _ in range(3)]

    assert [200] * 3 == [response.status_code for response in responses]
    assert {"run": 1, "event": 1, "rejected_delivery": 0} == service.counts()


async def test_redelivery_with_another_offset(service, client, path):
    """The same moment is the same event, in whatever time zone it is told."""
    await client.post(path, content=good(0))

    again = changed(("createdAt",), "2026-11-01T12:30:00+02:00")
    response = await client.post(path, content=again)

    assert 200 == response.status_code


async def test_run_that_ends_twice(service, client, path):
    """A resurrected run has two events, and is stored as it ended last."""
    for minute in (30, 50, 40):
        response = await client.post(path, json=payload(0, minute=minute))
        assert 201 == response.status_code

    assert {"run": 1, "event": 3, "rejected_delivery": 0} == service.counts()
    ended = "2026-11-01 10:50:00.000000"
    assert [(ended,)] == service.rows("finished_at", "run")


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
async def test_missing_field(service, client, path, field):
    """A delivery that lacks a field is answered 400, naming the field."""
    detail = await assert_rejected(service, client, path, changed(field, ...))

    assert f"{'.'.join(field)}: Field required" == detail


@pytest.mark.parametrize("field", FIELDS, ids=NAMES)
async def test_wrong_value(service, client, path, field):
    """A field of the wrong type or form is answered 400, naming the field."""
    for value in (None, 7, 1.5, True, [], "", " ", "\0", "x" * 65):
        detail = await assert_rejected(service, client, path, changed(field, value))

        assert detail.startswith(f"{'.'.join(field)}: ")


BODIES = {
    "empty": b"",
    "brace": b"{",
    "word": b"hello",
    "null": b"null",
    "array": b"[]",
    "string": b'"text"',
    "number": b"7",
    "no fields": b"{}",
    "cut short": good(0)[:-1],
    "too long": good(0) + b"}",
    "UTF-16": good(0).decode().encode("utf-16"),
    "not UTF-8": b'{"userId": "\xc3\x28"}',
    "half a surrogate": b'{"userId": "\\ud800"}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_body_that_is_no_delivery(service, client, path, body):
    """A body that is not JSON, or not an object, is answered 400 and kept as it is."""
    await assert_rejected(service, client, path, body)


@pytest.mark.parametrize(
    "field, value, told",
    [
        (("eventType",), "ACTOR.RUN.CREATED", "eventType: "),
        (("eventType",), "actor.run.succeeded", "eventType: "),
        (("eventType",), "ACTOR.RUN.FAILED", "not SUCCEEDED after ACTOR.RUN.FAILED"),
        (("resource", "status"), "ABORTED", "not ABORTED after ACTOR.RUN.SUCCEEDED"),
        (("resource", "status"), "RUNNING", "resource.status: "),
        (("resource", "id"), "another", "resource.id is not eventData.actorRunId"),
        (("eventData", "actorRunId"), "another", "resource.id is not"),
        (("resource", "actId"), "another", "resource.actId is not eventData.actorId"),
        (("resource", "finishedAt"), "2026-11-01T09:00:00Z", "is before"),
        (("createdAt",), "2026-11-01T10:30:00", "createdAt: "),
        (("createdAt",), "2026-02-30T10:30:00Z", "createdAt: "),
        (("createdAt",), "0001-01-01T00:00:00+14:00", "createdAt: "),
    ],
)
async def test_contradiction(service, client, path, field, value, told):
    """Fields that contradict each other, or the calendar, are answered 400."""
    detail = await assert_rejected(service, client, path, changed(field, value))

    assert told in detail


async def test_contradiction_found_half_way(service, client, path):
    """Of a delivery that turns out bad when its event is written, no row is kept."""
    await client.post(path, content=good(0))
    another_actor = json.dumps(payload(0, actor="crawler", minute=50)).encode()

    detail = await assert_rejected(service, client, path, another_actor)

    assert "Run run0 is not a run of actor crawler" == detail
    assert [("scraper",)] == service.rows("actor_id", "run")


async def test_long_body_is_cut(service, client, path):
    """Only the beginning of a very long bad body is kept."""
    await assert_rejected(service, client, path, b"x" * 1_000_000)

    assert [(10_000,)] == service.rows("length(body)", "rejected_delivery")


class Fault(Exception):
    """Something that nobody expected."""


def fail_at(service: Service, table: str) -> Any:
    """Make the service fail where it is about to write to that table."""

    def fail(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith(f"INSERT INTO {table}"):
            raise Fault

    event.listen(service.engine, "before_cursor_execute", fail)
    return lambda: event.remove(service.engine, "before_cursor_execute", fail)


def fail_at_commit(service: Service) -> Any:
    """Make every COMMIT of the service fail."""

    def fail(connection):
        raise Fault

    event.listen(service.engine, "commit", fail)
    return lambda: event.remove(service.engine, "commit", fail)


@pytest.mark.parametrize("table", ["run", "event", "COMMIT"])
async def test_unexpected_fault(service, client, path, table):
    """An unexpected fault is a 500 that leaves nothing half done, nor held."""
    repair = fail_at_commit(service) if table == "COMMIT" else fail_at(service, table)

    response = await client.post(path, content=good(0))

    assert 500 == response.status_code
    assert 0 == service.checkouts.out
    assert {"run": 0, "event": 0, "rejected_delivery": 0} == service.counts()
    repair()
    response = await client.post(path, content=good(0))
    assert 201 == response.status_code


async def test_rejection_that_cannot_be_recorded(service, client, path):
    """A bad delivery is answered 500 if it cannot be kept for the record."""
    fail_at(service, "rejected_delivery")

    response = await client.post(path, content=b"{}")

    assert 500 == response.status_code
    assert 0 == service.checkouts.out
    assert {"run": 0, "event": 0, "rejected_delivery": 0} == service.counts()


@pytest.mark.parametrize(
    "path, status", [("/webhooks", 400), ("/webhooks/raised-late", 500)]
)
async def test_rejection_that_cannot_be_committed(
    service, client, path, status, caplog
):
    """The dependency lets the 400 leave and logs the failed commit; raised late,
    the 400 comes after the commit, which is the error that leaves.
    """
    fail_at_commit(service)

    response = await client.post(path, content=b"{}")

    assert status == response.status_code
    assert (status == 400) == ("safesession: commit failed" in caplog.text)
    assert 0 == service.checkouts.out
    assert {"run": 0, "event": 0, "rejected_delivery": 0} == service.counts()
