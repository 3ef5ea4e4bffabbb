"""The threads in which sessions are left: how many there are, and whose."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.orm import Session

from apps import client
from safesession import _threads
from safesession.fastapi import session_dependency


@pytest.mark.anyio
async def test_no_more_threads_than_exits_at_once(engine: Engine) -> None:
    """A thread that has ended one exit is there for the next."""
    app = FastAPI()
    get_session = session_dependency(engine)

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        session.scalar(select(1))

    async def ask_again_and_again() -> None:
        for _ in range(150):
            assert 200 == (await asking.get("/")).status_code

    before = threads_of_exits()
    async with client(app) as asking:
        await asyncio.gather(*[ask_again_and_again() for _ in range(4)])

    # The pool has two connections.
    assert len(threads_of_exits() - before) <= 2


@pytest.mark.anyio
async def test_threads_that_nothing_needs_end(
    make_engine: Callable[..., Engine],
) -> None:
    """After many exits at once no more threads stay than a pool usually needs."""
    engine = make_engine(pool_size=45)
    app = FastAPI()
    get_session = session_dependency(engine)
    used: set[threading.Thread] = set()
    all_leave = threading.Barrier(45, timeout=20)

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        session.scalar(select(1))

    @event.listens_for(engine, "commit")
    def wait_for_the_others(connection: Connection) -> None:
        used.add(threading.current_thread())
        all_leave.wait()

    async with client(app) as asking:
        answers = await asyncio.gather(*[asking.get("/") for _ in range(45)])

    assert {200} == {each.status_code for each in answers}
    idle = _threads._idle_threads(os.getpid())
    kept = {thread for executor in idle for thread in executor._threads}
    assert 45 == len(used)
    assert 40 == len(used & kept)
    for thread in used - kept:
        thread.join(timeout=20)
        assert not thread.is_alive()


def threads_of_exits() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "safesession" in each.name}


SERVES = """
import asyncio
import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session

from safesession.fastapi import session_dependency

engine = create_engine("sqlite:///served.db", poolclass=NullPool)
get_session = session_dependency(engine)
app = FastAPI()

@app.get("/")
def one(session: Annotated[Session, Depends(get_session)]) -> int:
    return session.scalar(text("SELECT 1"))

async def ask() -> int:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get("/")).json()

print(asyncio.run(ask()), flush=True)
child = os.fork()
if child == 0:
    print(asyncio.run(ask()), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_forked_process_has_threads_of_its_own(tmp_path: os.PathLike[str]) -> None:
    """What was begun before the fork is not waited for after it."""
    served = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SERVES],
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        text=True,
    )

    assert (served.stdout, served.stderr) == ("1\n1\n", "")
