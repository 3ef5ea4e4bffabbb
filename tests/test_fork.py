"""A process that is forked from one that has served requests."""

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()"),
]

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
