"""A TCP proxy on which connections are lost: it stalls, cuts or resets them.

    with proxying("127.0.0.1", 5432) as proxy:
        proxy.when("client", b"COMMIT", "cut")

What passes is looked at as it is read. On one machine that is a message of a database's
protocol, or several, and never a part of one as small as those are that tests wait for.
"""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, NamedTuple, cast

Side = Literal["client", "server"]
# Both sides find the connection closed, or reset; or what passes is held.
Action = Literal["cut", "reset", "stall"]

# What is sent to the client, and to the server.
Link = tuple[StreamWriter, StreamWriter]

ADDRESS = "127.0.0.1"
# The kernel sends RST for a socket that is closed, and not FIN.
LINGER = struct.pack("ii", 1, 0)


class Awaited(NamedTuple):
    """What is to be done with the first that comes from a side and holds a text."""

    side: Side
    text: bytes
    action: Action


class Proxy:
    """Passes on what comes, until it meets what it was told to wait for."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._loop = asyncio.new_event_loop()
        self._links: dict[asyncio.Task[None], Link] = {}
        self._awaited: Awaited | None = None
        self._going_on = asyncio.Event()
        self._ending = asyncio.Event()
        self._met = threading.Event()
        self.port = 0

    def when(self, side: Side, text: bytes, action: Action) -> None:
        """Do something, once, when what comes from a side holds a text."""
        self._met.clear()
        self._awaited = Awaited(side, text, action)

    def wait(self) -> None:
        """Wait until what was awaited has come."""
        assert self._met.wait(10)

    def go_on(self) -> None:
        """Pass on what is held."""
        self._loop.call_soon_threadsafe(self._going_on.set)

    def lose_all(self, action: Action) -> None:
        """Cut or reset every connection that there is now."""

        async def lose() -> None:
            for link in self._links.values():
                end(link, action)

        asyncio.run_coroutine_threadsafe(lose(), self._loop).result(10)

    def serve(self, started: threading.Event) -> None:
        """Be the proxy, in this thread."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        async with await asyncio.start_server(self._link, ADDRESS) as server:
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            await self._ending.wait()
            self._going_on.set()
            for link in self._links.values():
                end(link, "cut")
            if self._links:
                await asyncio.wait(self._links)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)

    async def _link(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._server)
        except OSError:
            to_client.transport.abort()
            return
        link = to_client, to_server
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._links[task] = link
        try:
            await asyncio.gather(
                self._pass_on("client", from_client, to_server, link),
                self._pass_on("server", from_server, to_client, link),
            )
        finally:
            del self._links[task]

    async def _pass_on(
        self,
        side: Side,
        reader: StreamReader,
        writer: StreamWriter,
        link: Link,
    ) -> None:
        with suppress(ConnectionError):
            while passing := await reader.read(1 << 16):
                action = self._met_by(side, passing)
                if action == "stall":
                    self._met.set()
                    await self._going_on.wait()
                elif action is not None:
                    end(link, action)
                    self._met.set()
                    return
                writer.write(passing)
                await writer.drain()
        end(link, "cut")

    def _met_by(self, side: Side, passing: bytes) -> Action | None:
        awaited = self._awaited
        if awaited is None or awaited.side != side or awaited.text not in passing:
            return None
        self._awaited = None
        self._going_on.clear()
        return awaited.action


def end(link: Link, action: Action) -> None:
    for writer in link:
        if action == "reset" and not writer.is_closing():
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
            writer.transport.abort()
        writer.close()


@contextmanager
def proxying(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy of a server, in a thread of its own."""
    proxy, started = Proxy(host, port), threading.Event()
    thread = threading.Thread(target=proxy.serve, args=(started,))
    thread.start()
    try:
        assert started.wait(10)
        yield proxy
    finally:
        proxy.end()
        thread.join()
