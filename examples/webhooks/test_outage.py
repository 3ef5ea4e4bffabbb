"""A database that goes away and comes back."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from deliveries import bad, good
from sqlalchemy import event
from under_test import Service

pytestmark = pytest.mark.anyio


@contextmanager
def outage(service: Service) -> Iterator[None]:
    """Take the database away for the length of a block.

    The pool's connections go with it, as they do when a database server stops.
    """
    elsewhere = service.directory.with_name("elsewhere")
    service.directory.rename(elsewhere)
    service.engine.dispose()
    try:
        yield
    finally:
        elsewhere.rename(service.directory)


async def test_goes_away_and_comes_back(service, client, path):
    """Meanwhile the sender is told to come again later; then all is as before."""
    assert 201 == (await client.post(path, content=good(0))).status_code

    with outage(service):
        for body in (good(0), good(1), bad(2)):
            response = await client.post(path, content=body)

            assert 503 == response.status_code
            assert "1" == response.headers["Retry-After"]
            assert {"detail": "Service Unavailable"} == response.json()
            assert 0 == service.checkouts.out

    assert {"run": 1, "event": 1, "rejected_delivery": 0} == service.counts()
    statuses = [
        (await client.post(path, content=body)).status_code
        for body in (good(0), good(1), bad(2))
    ]
    assert [200, 201, 400] == statuses
    assert {"run": 2, "event": 2, "rejected_delivery": 1} == service.counts()


async def test_goes_away_under_load(service, client, path):
    """What was answered 503 comes again, and is stored as if for the first time."""
    bodies = [good(number) for number in range(60)]

    async def post_all() -> set[int]:
        posts = (client.post(path, content=body) for body in bodies)
        return {response.status_code for response in await asyncio.gather(*posts)}

    with outage(service):
        assert {503} == await post_all()
        assert 0 == service.checkouts.out

    assert {201} == await post_all()
    assert {"run": 60, "event": 60, "rejected_delivery": 0} == service.counts()


async def test_goes_away_in_the_middle(service, client, path):
    """Of the deliveries under way, those answered 201 are stored; the others, 503."""
    bodies = [good(number) for number in range(80)]
    answers: dict[int, list[bytes]] = {201: [], 500: [], 503: []}
    some_are_answered = asyncio.Event()

    async def post(body: bytes) -> None:
        response = await client.post(path, content=body)
        answers[response.status_code].append(body)
        if sum(map(len, answers.values())) == 20:
            some_are_answered.set()

    # Files are not moved under a transaction, which SQLite forbids: no connection can
    # be opened any more, while those that are out are good to the end.
    def refuse(*arguments: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    deliveries = [asyncio.create_task(post(body)) for body in bodies]
    await some_are_answered.wait()
    event.listen(service.engine, "do_connect", refuse)
    service.engine.dispose()
    await asyncio.gather(*deliveries)
    event.remove(service.engine, "do_connect", refuse)

    assert 0 == service.checkouts.out
    assert [] == answers[500]
    assert answers[201] and answers[503]
    runs = {f"run{number}": body for number, body in enumerate(bodies)}
    stored = [runs[run] for (run,) in service.rows("id", "run")]
    assert sorted(answers[201]) == sorted(stored)
    assert len(stored) == service.counts()["event"]
    again = [(await client.post(path, content=body)).status_code for body in bodies]
    assert len(answers[201]) == again.count(200)
    assert len(answers[503]) == again.count(201)


async def test_dead_connection_in_the_pool(service, client, path):
    """A delivery that is given a dead connection is a 503; the next one is stored."""
    pooled = service.engine.raw_connection()
    driver_connection = pooled.driver_connection
    pooled.close()
    driver_connection.close()

    statuses = [
        (await client.post(path, content=good(0))).status_code for _ in range(2)
    ]

    assert [503, 201] == statuses
    assert {"run": 1, "event": 1, "rejected_delivery": 0} == service.counts()
