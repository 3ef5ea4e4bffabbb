"""The same service with a `get_session` that yields a second time."""

import gc
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
from deliveries import bad, good
from under_test import Service

pytestmark = pytest.mark.anyio


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Iterator[Service]:
    service = make_service(session="faulty", pool_timeout=0.05)
    yield service
    gc.collect()  # finds the connections that are out


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client() as client:
        yield client


async def test_good_delivery(service, client):
    """As long as nothing is raised, all is well."""
    for status in (201, 200):
        response = await client.post("/webhooks", content=good(0))
        assert status == response.status_code

    assert {"run": 1, "event": 1, "rejected_delivery": 0} == service.counts()
    assert 0 == service.checkouts.out


@pytest.mark.parametrize("body", [b"", bad(0), bad(1)], ids=["empty", "bad", "worse"])
async def test_bad_delivery(service, client, body):
    """A 400 becomes a 500, is not recorded, and leaves a connection out."""
    response = await client.post("/webhooks", content=body)

    assert 500 == response.status_code
    assert {"run": 0, "event": 0, "rejected_delivery": 0} == service.counts()
    assert 1 == service.checkouts.out == service.engine.pool.checkedout()


async def test_what_python_says(service):
    """The server is told that the generator didn't stop, in place of the 400."""
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        with pytest.raises(RuntimeError, match=r"^generator didn't stop after throw"):
            await client.post("/webhooks", content=b"")


async def test_bad_deliveries_use_up_the_pool(service, client):
    """After as many bad deliveries as the pool has connections, no good one passes."""
    for number in range(40):
        assert 500 == (await client.post("/webhooks", content=bad(number))).status_code

    response = await client.post("/webhooks", content=good(0))

    assert 503 == response.status_code
    assert {"run": 0, "event": 0, "rejected_delivery": 0} == service.counts()
    assert 40 == service.checkouts.out
