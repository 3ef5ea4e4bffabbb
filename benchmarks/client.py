"""The load generator: HTTP/1.1 over connections that are kept, each answer checked.

It is as small as that allows, as it runs beside the server that is measured.
"""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar, cast

T = TypeVar("T")
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it on the fastest loop there is."""
    loop_factory = None
    with suppress(ImportError):
        # It knows no Windows.
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


@dataclass(frozen=True)
class Request:
    """A request, and the status of its right answer."""

    method: str
    path: str
    expected: int

    def __bytes__(self) -> bytes:
        head = f"{self.method} {self.path} HTTP/1.1\r\nhost: localhost\r\n"
        length = "content-length: 0\r\n" if self.method == "POST" else ""
        return f"{head}{length}\r\n".encode()


@dataclass
class Tally:
    """What came of the requests that were sent for some time."""

    right: int = 0
    wrong: int = 0
    # Of the right answers, in seconds.
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0

    @property
    def rate(self) -> float:
        return self.right / self.seconds


class Connection(asyncio.Protocol):
    """A connection that is kept, with one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[int] | None = None

    async def ask(self, request: bytes) -> int:
        """Send a request, and return the status of its answer."""
        # Anew, where the server has closed it.
        if self._transport is None:
            await self.open()
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self._port)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not to be asserted: uvloop's is no subclass.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = CONTENT_LENGTH.search(head)
        if length is None:
            self._end(ConnectionError(f"an answer without a length: {head!r}"))
            self.close()
        elif len(body) >= int(length[1]):
            self._received = body[int(length[1]) :]
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(int(head.split(b" ", 2)[1]))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._received = b""
        self._end(error or ConnectionError("the server has closed the connection"))

    def _end(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def ask_for(
    connections: Sequence[Connection], request: Request, seconds: float
) -> Tally:
    """Send the request again and again over each connection, for so long."""
    tally = Tally()
    raw = bytes(request)
    start = perf_counter()

    async def keep_asking(connection: Connection) -> None:
        while perf_counter() < start + seconds:
            await _ask_once(connection, raw, request.expected, tally)

    await asyncio.gather(*map(keep_asking, connections))
    tally.seconds = perf_counter() - start
    return tally


async def ask_times(
    connections: Sequence[Connection], request: Request, times: int, deadline: float
) -> Tally:
    """Send the request so many times, over each connection when it is free.

    What is not answered within `deadline` seconds counts as wrong.
    """
    tally = Tally()
    raw = bytes(request)
    numbers = iter(range(times))

    async def keep_asking(connection: Connection) -> None:
        for _ in numbers:
            sent = perf_counter()
            if await _ask_once(connection, raw, request.expected, tally):
                tally.latencies.append(perf_counter() - sent)

    start = perf_counter()
    try:
        async with asyncio.timeout(deadline):
            await asyncio.gather(*map(keep_asking, connections))
    except TimeoutError:
        tally.wrong = times - tally.right
    tally.seconds = perf_counter() - start
    return tally


async def _ask_once(
    connection: Connection, raw: bytes, expected: int, tally: Tally
) -> bool:
    try:
        right = await connection.ask(raw) == expected
    except ConnectionError:
        right = False
    if right:
        tally.right += 1
    else:
        tally.wrong += 1
    return right


async def connect(port: int, count: int) -> list[Connection]:
    """Open so many connections to a server."""
    connections = [Connection(port) for _ in range(count)]
    for connection in connections:
        await connection.open()
    return connections
