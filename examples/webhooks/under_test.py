"""The service under test."""

import sqlite3
from pathlib import Path
from typing import Any

import httpx
from checkouts import Checkouts
from service.app import create_app


class Service:
    """A service on a SQLite file, its connections watched, its rows there to see."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.app = create_app(f"sqlite:///{directory / 'webhooks.db'}", **options)
        self.engine = self.app.state.engine
        self.checkouts = Checkouts(self.engine)

    def client(self, url: str | None = None) -> httpx.AsyncClient:
        """Return a client of the app in this process, or of a server at `url`."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport if url is None else None,
            base_url=url or "http://webhooks",
            timeout=60,
        )

    def rows(self, columns: str, table: str) -> list[tuple[Any, ...]]:
        """Return what a connection from outside finds committed."""
        connection = sqlite3.connect(self.directory / "webhooks.db")
        try:
            query = f"SELECT {columns} FROM {table} ORDER BY {columns}"  # noqa: S608
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def counts(self) -> dict[str, int]:
        tables = ("run", "event", "rejected_delivery")
        return {table: len(self.rows("1", table)) for table in tables}
