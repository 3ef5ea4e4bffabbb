"""Fixtures of the FastAPI tests: a database of either kind, and a real server."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from safesession import _admission
from safesession.fastapi import async_session_dependency, session_dependency


@dataclass
class Database:
    """An engine, and the dependency factory that goes with it."""

    bind: Any
    engine: Engine
    factory: Callable[..., Any]
    events: list[str] = field(default_factory=list)

    def get_session(self, **options: Any) -> Callable[..., Any]:
        return self.factory(self.bind, **options)

    def report(self, *names: str) -> list[str]:
        """Return a list that tells of the engine's events called `names`."""
        for name in names:
            event.listen(
                self.engine, name, lambda *args, name=name: self.events.append(name)
            )
        return self.events


@pytest.fixture
def sync_database(engine: Engine) -> Database:
    return Database(engine, engine, session_dependency)


@pytest.fixture
def async_database(async_engine: AsyncEngine) -> Database:
    return Database(async_engine, async_engine.sync_engine, async_session_dependency)


@pytest.fixture
def database(
    request: pytest.FixtureRequest, sync_database: Database, async_database: Database
) -> Database:
    return sync_database if request.param == "sync_session" else async_database


@pytest.fixture
def no_other_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget those of other tests: a request might ask for their sessions too."""
    monkeypatch.setattr(_admission, "_limiters", [])


class _Server(uvicorn.Server):
    """A server that tells when it has started, and ends the engines of its loop."""

    def __init__(self, config: uvicorn.Config, engines: list[AsyncEngine]) -> None:
        super().__init__(config)
        self._engines = engines
        self.has_started = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # A connection of asyncpg does not outlive its loop.
        for engine in self._engines:
            await engine.dispose()


@contextmanager
def _running(app: Any, engines: list[AsyncEngine]) -> Iterator[str]:
    config = uvicorn.Config(app, lifespan="off", log_config=None, http="h11", ws="none")
    server = _Server(config, engines)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert server.has_started.wait(10)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def serve(
    make_engine: Any, made_async_engines: list[AsyncEngine]
) -> Iterator[Callable[[Any], str]]:
    """Return a function that starts uvicorn for an app and returns its address.

    The servers have stopped when the engines are seen checked in.
    """
    with ExitStack() as servers:
        yield lambda app: servers.enter_context(_running(app, made_async_engines))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port of this machine that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
