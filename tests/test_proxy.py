"""The proxy that tests lose connections on, before a server that repeats all."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from queue import Queue

import pytest

from proxy import Action, Proxy, Side, proxying

LOST = {"cut": b"", "reset": b"ConnectionResetError"}


@pytest.fixture
def heard() -> Queue[bytes]:
    """Return what the server hears, and at last how its connection ended."""
    return Queue()


@pytest.fixture
def proxy(heard: Queue[bytes]) -> Iterator[Proxy]:
    class Repeat(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while said := received(self.request):
                heard.put(said)
                if said == LOST["reset"]:
                    return
                self.request.sendall(b"again: " + said)
            heard.put(said)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Repeat) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with proxying(*server.server_address) as proxy:
            yield proxy
        server.shutdown()
        thread.join()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        assert ask(client, b"hello") == b"again: hello"
        yield client


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(99)
    except ConnectionError as error:
        return type(error).__name__.encode()


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return received(client)


@pytest.mark.parametrize("side, passed_on", [("client", []), ("server", [b"now"])])
@pytest.mark.parametrize("action", LOST)
def test_lost_at_what_passes(
    proxy: Proxy,
    client: socket.socket,
    heard: Queue[bytes],
    side: Side,
    passed_on: list[bytes],
    action: Action,
) -> None:
    """Both sides lose the connection, before the message that was waited for."""
    proxy.when(side, b"now", action)

    assert ask(client, b"not yet") == b"again: not yet"
    assert ask(client, b"now") == LOST[action]

    proxy.wait()
    expected = [b"hello", b"not yet", *passed_on, LOST[action]]
    assert [heard.get(timeout=10) for _ in expected] == expected


@pytest.mark.parametrize("action", LOST)
def test_lost_at_once(
    proxy: Proxy, client: socket.socket, heard: Queue[bytes], action: Action
) -> None:
    """Those are lost that there are, and others not."""
    proxy.lose_all(action)

    assert received(client) == LOST[action]
    expected = [b"hello", LOST[action]]
    assert [heard.get(timeout=10) for _ in expected] == expected
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as another:
        assert ask(another, b"more") == b"again: more"


@pytest.mark.parametrize("side", ["client", "server"])
def test_held(
    proxy: Proxy, client: socket.socket, heard: Queue[bytes], side: Side
) -> None:
    """What is held arrives when it is let go on, and what comes after it, after it."""
    proxy.when(side, b"now", "stall")

    client.sendall(b"now")
    proxy.wait()
    client.sendall(b"then")
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(99)
    client.setblocking(True)
    proxy.go_on()

    got = b""
    while not got.endswith(b"then"):
        got += received(client)
    assert got.replace(b"again: ", b"") == b"nowthen"
