"""A database that is reached by a proxy, on which its connections are lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import URL

from backends import Backend
from proxy import ADDRESS, Proxy, proxying


@dataclass(frozen=True)
class Proxied(Backend):
    """The database by the proxy, and the one behind it."""

    behind: Backend
    proxy: Proxy


@contextmanager
def proxied(backend: Backend) -> Iterator[Proxied]:
    """Run a proxy of a PostgreSQL."""
    host, port = backend.url.host, backend.url.port
    with proxying(host or ADDRESS, port or 5432) as proxy:

        def through(url: URL) -> URL:
            # The proxy is to read what passes.
            plain = "ssl" if url.get_driver_name() == "asyncpg" else "sslmode"
            url = url.set(host=ADDRESS, port=proxy.port)
            return url.update_query_dict({plain: "disable"})

        urls = map(through, (backend.url, backend.async_url))
        yield Proxied(*urls, behind=backend, proxy=proxy)
