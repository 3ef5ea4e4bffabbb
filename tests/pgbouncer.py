"""A PgBouncer in transaction mode, before a PostgreSQL of tests.

with pgbouncer(server) as pooled:
    engine = create_engine(pooled.url("psycopg"), connect_args=UNPREPARED["psycopg"])
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from postgresql import PostgreSQL, reserved_port
from processes import installed, place_of, running

# A prepared statement is on one of the server's connections, and the next transaction
# may have another.
UNPREPARED: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "asyncpg": {"statement_cache_size": 0, "prepared_statement_cache_size": 0},
}
SERVER_CONNECTIONS = 2
SETTINGS = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr=127.0.0.1
listen_port={listen_port}
unix_socket_dir=
auth_type=plain
auth_file=users
pool_mode=transaction
default_pool_size={size}
max_client_conn=200
ignore_startup_parameters=extra_float_digits
"""


@contextmanager
def pgbouncer(database: PostgreSQL) -> Iterator[PostgreSQL]:
    """Start one before a database, and stop it at the end."""
    server, port, password = database.url(), reserved_port(), secrets.token_hex(16)
    with place_of("pgbouncer") as directory:
        settings = SETTINGS.format(
            host=server.host,
            port=server.port,
            user=server.username,
            password=server.password,
            listen_port=port,
            size=SERVER_CONNECTIONS,
        )
        (directory / "settings.ini").write_text(settings)
        (directory / "users").write_text(f'"tests" "{password}"\n')
        command = (installed("pgbouncer"), "settings.ini")
        with running(directory, command, "process up"):
            yield PostgreSQL(server.set(username="tests", password=password, port=port))
