"""Serve an application on a real uvicorn for the length of a block."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn
from fastapi import FastAPI


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve `app` on a free port, and yield its address.

    The server is down, and each request at its end, when the block is left. It runs in
    a thread, so that it cannot outlive this process.
    """
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        # It listens already: whoever connects before uvicorn accepts is kept waiting.
        port = listener.getsockname()[1]
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(timeout=15)
    if thread.is_alive():
        raise RuntimeError("uvicorn did not stop")
