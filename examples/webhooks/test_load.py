"""Many deliveries at once: each has its own answer, and the rows are as answered."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable

import httpx
import pytest
from deliveries import bad, good, mixed, payload
from serving import serving
from under_test import Service

pytestmark = pytest.mark.anyio


async def post_all(
    client: httpx.AsyncClient, path: str, bodies: Iterable[bytes]
) -> list[httpx.Response]:
    return await asyncio.gather(*(client.post(path, content=body) for body in bodies))


async def check_good_and_bad_mixed(
    service: Service, client: httpx.AsyncClient, path: str
) -> None:
    bodies = [good(number) for number in range(100)]
    bodies += [good(number) for number in range(40)]
    bodies = mixed(bodies + [bad(number) for number in range(100, 160)])

    responses = await post_all(client, path, bodies)

    answers: dict[bytes, list[int]] = {body: [] for body in bodies}
    for body, response in zip(bodies, responses, strict=True):
        answers[body].append(response.status_code)
    for number in range(100):
        expected = [200, 201] if number < 40 else [201]
        assert expected == sorted(answers[good(number)])
    runs = sorted((f"run{number}",) for number in range(100))
    assert runs == service.rows("id", "run")
    assert runs == service.rows("run_id", "event")
    rejected = [
        (response.json()["detail"], body)
        for body, response in zip(bodies, responses, strict=True)
        if response.status_code == 400
    ]
    assert {bad(number) for number in range(100, 160)} == {body for _, body in rejected}
    assert sorted(rejected) == service.rows("reason, body", "rejected_delivery")
    assert service.checkouts.peak > 1


async def test_good_and_bad_mixed(service, client, path):
    """Of 200 deliveries at once, good, bad and repeated, none gets another's answer."""
    await check_good_and_bad_mixed(service, client, path)


async def test_good_and_bad_mixed_over_a_real_server(service):
    """The same on uvicorn, over the network."""
    with serving(service.app) as url:
        async with service.client(url) as client:
            await check_good_and_bad_mixed(service, client, "/webhooks")


async def test_same_event_many_times(service, client, path):
    """Of 50 deliveries of one event at once, one is stored and none is an error."""
    responses = await post_all(client, path, [good(0)] * 50)

    statuses = Counter(response.status_code for response in responses)
    assert {201: 1, 200: 49} == statuses
    assert {"run": 1, "event": 1, "rejected_delivery": 0} == service.counts()


async def test_many_events_of_one_run(service, client, path):
    """Of 50 events of one run at once, each is stored, and the run as it ended last."""
    events = [payload(0, minute=minute) for minute in range(10, 60)]
    bodies = mixed([json.dumps(event).encode() for event in events])

    responses = await post_all(client, path, bodies)

    assert {201} == {response.status_code for response in responses}
    assert {"run": 1, "event": 50, "rejected_delivery": 0} == service.counts()
    assert [("2026-11-01 10:59:00.000000",)] == service.rows("finished_at", "run")
