"""A real MariaDB for tests, and a Galera cluster of them.

    with galera(2) as (one, other):
        engine = create_engine(one.url("pymysql"))

They have a password, as any user of the machine can reach 127.0.0.1.
"""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from postgresql import reserved_port
from processes import NotInstalled, installed, place_of, run, running

GALERA = Path("/usr/lib/galera/libgalera_smm.so")
# No test outlives the machine.
OPTIONS = (
    "--no-defaults",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--socket=socket",
    "--pid-file=pid",
    "--max-connections=200",
    "--debug-no-sync",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--innodb-use-native-aio=OFF",
)
READY = "mariadbd: ready for connections"
# What a cluster needs, beside what is each node's own.
CLUSTER_OPTIONS = (
    "--wsrep-on=ON",
    f"--wsrep-provider={GALERA}",
    "--wsrep-cluster-name=safesession",
    "--wsrep-sst-method=rsync",
    "--wsrep-node-address=127.0.0.1",
    "--binlog-format=ROW",
    "--innodb-autoinc-lock-mode=2",
)
JOINED = "Synchronized with group, ready for connections"
# It is read when there are no privileges yet. Nobody is to be root without a password.
SETUP = """
FLUSH PRIVILEGES;
CREATE DATABASE safesession;
CREATE USER tests@127.0.0.1 IDENTIFIED BY '{password}';
GRANT ALL ON *.* TO tests@127.0.0.1;
DELETE FROM mysql.global_priv WHERE User = 'root';
"""


@dataclass(frozen=True)
class MariaDB:
    """A running server, whose database is the test's."""

    port: int
    password: str
    pid: int

    def url(self, driver: str = "pymysql") -> URL:
        """Return where it is, for "pymysql" (sync) or "asyncmy" (async)."""
        return URL.create(
            f"mariadb+{driver}",
            "tests",
            self.password,
            "127.0.0.1",
            self.port,
            "safesession",
        )

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@contextmanager
def mariadb(*options: str) -> Iterator[MariaDB]:
    """Start a MariaDB, and stop it at the end."""
    with place_of("mariadb") as directory:
        password = set_up(directory)
        with started(directory, password, READY, *options) as server:
            yield server


@contextmanager
def galera(size: int) -> Iterator[list[MariaDB]]:
    """Start a cluster of so many nodes, and stop them at the end."""
    if not GALERA.exists():
        raise NotInstalled("no Galera: scripts/install-services.sh installs it")
    installed("rsync")
    listening = [reserved_port() for _ in range(size)]
    address = ",".join(f"127.0.0.1:{port}" for port in listening)
    nodes: list[MariaDB] = []
    with ExitStack() as stack:
        for port in listening:
            directory = stack.enter_context(place_of("galera"))
            provider = (
                f"gmcast.listen_addr=tcp://127.0.0.1:{port};"
                f"ist.recv_addr=127.0.0.1:{reserved_port()};gcache.size=16M"
            )
            options = [
                *CLUSTER_OPTIONS,
                f"--wsrep-cluster-address=gcomm://{address}",
                f"--wsrep-provider-options={provider}",
                f"--wsrep-sst-receive-address=127.0.0.1:{reserved_port()}",
            ]
            # The others have all that the first one has, users too.
            if not nodes:
                password, ready = set_up(directory), READY
                options.append("--wsrep-new-cluster")
            else:
                run(directory, "mkdir", "data")
                ready = JOINED
            server = started(directory, password, ready, *options)
            nodes.append(stack.enter_context(server))
        yield nodes


def set_up(directory: Path) -> str:
    """Make the files of a server; return its password."""
    password = secrets.token_hex(16)
    (directory / "setup.sql").write_text(SETUP.format(password=password))
    run(
        directory,
        installed("mariadb-install-db"),
        "--no-defaults",
        f"--datadir={directory / 'data'}",
        f"--extra-file={directory / 'setup.sql'}",
        "--auth-root-authentication-method=normal",
        "--skip-name-resolve",
        "--skip-test-db",
        "--innodb-log-file-size=8M",
    )
    return password


@contextmanager
def started(
    directory: Path, password: str, ready: str, *options: str
) -> Iterator[MariaDB]:
    port = reserved_port()
    command = (
        installed("mariadbd"),
        *OPTIONS,
        f"--datadir={directory / 'data'}",
        f"--tmpdir={directory}",
        f"--port={port}",
        *options,
    )
    with running(directory, command, ready) as pid:
        yield MariaDB(port, password, pid)
