"""The same service with a `get_session` as it is written by hand."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from deliveries import bad, good
from sqlalchemy import event
from under_test import Service

pytestmark = pytest.mark.anyio

NOTHING = {"run": 0, "event": 0, "rejected_delivery": 0}


@pytest.fixture(params=["faulty", "usual"])
def session(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def service(make_service: Callable[..., Service], session: str) -> Service:
    return make_service(session=session)


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


@pytest.mark.parametrize(
    "session, status", [("faulty", 500), ("usual", 400)], indirect=["session"]
)
@pytest.mark.parametrize("body", [b"", bad(0), bad(1)], ids=["empty", "bad", "worse"])
async def test_bad_delivery(service, client, status, body):
    """A 400 is not recorded, and becomes a 500 by the second yield."""
    response = await client.post("/webhooks", content=body)

    assert status == response.status_code
    assert NOTHING == service.counts()


@pytest.mark.parametrize("session", ["faulty"], indirect=True)
async def test_what_python_says(service):
    """The server is told that the generator didn't stop, in place of the 400."""
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        with pytest.raises(RuntimeError, match=r"^generator didn't stop after throw"):
            await client.post("/webhooks", content=b"")


async def test_commit_that_fails(service, client):
    """The client has been told that the delivery is stored, and it is not."""

    def fail(connection: Any) -> None:
        raise LookupError

    event.listen(service.engine, "commit", fail)

    response = await client.post("/webhooks", content=good(0))

    assert 201 == response.status_code
    assert NOTHING == service.counts()
