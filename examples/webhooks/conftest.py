"""Services to test, on SQLite files, with the garbage collector off."""

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from under_test import Service


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Let no connection come back because the garbage collector found it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def make(**options: Any) -> Service:
        directory = tmp_path / f"database{len(services)}"
        directory.mkdir()
        services.append(Service(directory, **options))
        return services[-1]

    yield make
    for service in services:
        service.engine.dispose()


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Iterator[Service]:
    """Return the service with safesession; no connection is out when the test ends."""
    service = make_service()
    yield service
    assert service.checkouts.out == 0
    assert service.engine.pool.checkedout() == 0
    assert service.checkouts.peak <= service.engine.pool.size()


@pytest.fixture(params=["/webhooks", "/webhooks/raised-late"])
def path(request: pytest.FixtureRequest) -> str:
    """Run the test with the dependency, and with the error raised after the scope."""
    return request.param


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.client() as client:
        yield client
