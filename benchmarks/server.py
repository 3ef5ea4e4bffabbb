"""The server, a process of its own: a uvicorn that serves the app on 127.0.0.1.

All variants are in one process. They share its engine, its threads and its event loop,
so that what differs between two figures of a round is the variant alone. Each case of
starvation and of growth has a fresh process, as what it leaves would weigh on the next.
"""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import uvicorn

import safesession

from .app import Prefixes
from .databases import ROOT, Database
from .machine import core_left, give_core
from .variants import VARIANTS

# Those that come at once wait here to be accepted.
BACKLOG = 4096


@dataclass(frozen=True)
class Pool:
    """How many connections the engine has, and how long a session waits for one."""

    size: int
    overflow: int = 0
    timeout: float = 30

    def __str__(self) -> str:
        return f"{self.size}+{self.overflow}"

    def options(self) -> dict[str, Any]:
        return {
            "pool_size": self.size,
            "max_overflow": self.overflow,
            "pool_timeout": self.timeout,
        }


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    pid: int

    def peak_memory(self) -> int | None:
        """Return the most memory that it has had, in KiB, where Linux tells."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return None
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@contextmanager
def serving(
    database: Database,
    session: str,
    variants: Sequence[str],
    pool: Pool,
    src: Path = ROOT / "src",
) -> Iterator[Server]:
    """Serve these variants for the length of the block, with the safesession of `src`.

    Args:
        session: The kind of session, ``"sync"`` or ``"async"``.
    """
    config: dict[str, Any] = {
        "database": asdict(database),
        "session": session,
        "variants": list(variants),
        "pool": asdict(pool),
        "steady": bool(core_left()),
    }
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        config["socket"] = listener.fileno()
        with process("benchmarks.server", src, listener.fileno()) as (child, say):
            # What it answers is where it listens; until it accepts, the socket holds
            # whoever connects.
            say(config)
            yield Server(listener.getsockname()[1], child.pid)


@contextmanager
def process(module: str, src: Path, *descriptors: int) -> Iterator[tuple[Any, Any]]:
    """Run a module of the benchmarks with the safesession of `src`.

    Yield the process, and a function that sends it something and returns its answer.
    """
    # So that two processes of one run differ in nothing by chance.
    environment = os.environ | {"PYTHONPATH": str(src), "PYTHONHASHSEED": "0"}
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment,
            pass_fds=descriptors,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):

        def say(something: Any) -> Any:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps(something) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            if not answer:
                errors.seek(0)
                raise RuntimeError(f"{module} has ended:\n{errors.read()[-4000:]}")
            return json.loads(answer)

        give_core(child.pid)
        try:
            imported = say(None)
            if not Path(imported).is_relative_to(src):
                raise RuntimeError(f"{imported} was imported, and not that of {src}")
            yield child, say
        finally:
            child.terminate()
            try:
                child.wait(timeout=3)
            except subprocess.TimeoutExpired:
                # Its event loop waits for a connection: it is what was measured.
                child.kill()


def hear() -> Any:
    """Return what the parent says next, in a process that it has started."""
    return json.loads(sys.stdin.readline() or "null")


def answer(something: Any) -> None:
    print(json.dumps(something), flush=True)


def introduce_oneself() -> None:
    hear()
    answer(safesession.__file__)


def main() -> None:
    introduce_oneself()
    config = hear()
    database = Database(**config["database"])
    options = Pool(**config["pool"]).options()
    session = config["session"]
    engine = database.engine_for(session, **options)
    wanted = [variant for variant in VARIANTS if variant.name in config["variants"]]
    server = uvicorn.Server(
        uvicorn.Config(
            Prefixes(wanted, session, engine),
            lifespan="off",
            access_log=False,
            log_level="critical",
            timeout_graceful_shutdown=1,
            # Connections are kept from one round to the next.
            timeout_keep_alive=3600,
            backlog=BACKLOG,
        )
    )
    if config["steady"]:
        # What is there for good is not looked at in each collection of garbage.
        gc.collect()
        gc.freeze()
    answer("serving")
    server.run(sockets=[socket.socket(fileno=config["socket"])])


if __name__ == "__main__":
    main()
