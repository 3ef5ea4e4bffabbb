"""The threads in which sessions are left: how many there are, and whose."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Annotated
from weakref import ReferenceType, ref

import anyio.lowlevel
import pytest
from anyio import fail_after
from fastapi import Depends, FastAPI
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.orm import Session

from apps import client, get
from safesession import _workers
from safesession.fastapi import session_dependency

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("no_other_dependencies"),
]
pytest_plugins = ("fastapi_fixtures",)


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


async def test_threads_that_nothing_needs_end(
    make_engine: Callable[..., Engine],
) -> None:
    """After many exits at once no more threads stay than are usually needed."""
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
    assert 45 == len(used)
    with fail_after(60):
        # Two that end at the same moment may both stay.
        while sum(each.is_alive() for each in used) > _workers.MOST_IDLE + 2:
            await anyio.lowlevel.checkpoint()


class Held:
    """A call that goes on until it is told to end."""

    def __init__(self, workers: _workers.Workers) -> None:
        self._begun, self._ends, self._told = (threading.Event() for _ in range(3))
        workers.put(self._call, self._told.set)
        assert self._begun.wait(5)

    def _call(self) -> None:
        self.thread = threading.current_thread()
        self._begun.set()
        self._ends.wait(5)

    def end(self) -> None:
        self._ends.set()
        assert self._told.wait(5)


def test_idle_thread_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that there is no place for ends."""
    monkeypatch.setattr(_workers, "MOST_IDLE", 1)
    workers = _workers.Workers()
    first, second = Held(workers), Held(workers)

    first.end()
    second.end()
    second.thread.join(5)
    third = Held(workers)
    third.end()

    assert first.thread is third.thread
    assert not second.thread.is_alive()


async def test_idle_thread_keeps_nothing(engine: Engine) -> None:
    """A session can be collected when its exit has ended."""
    app = FastAPI()
    get_session = session_dependency(engine)
    seen: list[ReferenceType[Session]] = []

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        session.scalar(select(1))
        seen.append(ref(session))

    assert 200 == (await get(app)).status_code
    with fail_after(5):
        while seen[0]() is not None:
            await anyio.lowlevel.checkpoint()
            gc.collect()


async def test_what_is_raised_in_the_thread_is_raised() -> None:
    error = LookupError()

    def fail() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        await _workers.in_thread(fail)

    assert error is raised.value


def test_thread_outlives_the_loop_that_waits_for_it() -> None:
    """What is to be told to a loop that is closed is told to nobody."""
    begun, goes_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def call() -> None:
        threads.append(threading.current_thread())
        begun.set()
        goes_on.wait(5)

    async def cancelled() -> None:
        task = asyncio.create_task(_workers.in_thread(call))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        await asyncio.wait((task,))

    asyncio.run(cancelled())
    goes_on.set()
    asyncio.run(_workers.in_thread(lambda: threads.append(threading.current_thread())))

    assert 2 == len(threads)
    assert all(each.is_alive() for each in threads)


def threads_of_exits() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "safesession" in each.name}


SERVES = """
import asyncio
import gc
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
