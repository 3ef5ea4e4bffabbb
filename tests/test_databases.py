"""What docs/databases.md says of databases, beside what its own blocks show."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from models import Note, stored
from safesession import session_scope

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[1] / "docs" / "databases.md"


@pytest.fixture
def options() -> dict[str, Any]:
    """Return what the page's block for PostgreSQL has."""
    page = PAGE.read_text(encoding="utf-8")
    block = re.search(
        r"^```python\n(settings = .*?)^```", page, re.DOTALL | re.MULTILINE
    )
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    return names


SHOWN = text(
    "SELECT concat_ws(' ', current_setting('statement_timeout'), "
    "current_setting('idle_in_transaction_session_timeout'), "
    "current_setting('client_connection_check_interval'))"
)


@pytest.mark.on("postgresql")
def test_settings_by_psycopg(
    make_engine: Callable[..., Engine], options: dict[str, Any]
) -> None:
    """The server has them."""
    with session_scope(make_engine(**options["psycopg"])) as session:
        assert session.scalar(SHOWN) == "30s 1min 10s"


@pytest.mark.anyio
@pytest.mark.on("postgresql")
async def test_settings_by_an_async_driver(
    make_async_engine: Callable[..., AsyncEngine], options: dict[str, Any]
) -> None:
    """Each takes those that are for it."""
    driver = make_async_engine().url.get_driver_name()

    async with make_async_engine(**options[driver]).connect() as connection:
        assert await connection.scalar(SHOWN) == "30s 1min 10s"


def append(session: Session, mark: str) -> None:
    note = session.scalars(select(Note).with_for_update()).one()
    note.text += mark


def test_update_that_is_lost_on_sqlite(engine: Engine) -> None:
    """By the driver's default nothing tells, whatever is locked."""
    with session_scope(engine) as session:
        session.add(Note(text=""))

    with session_scope(engine) as session:
        note = session.scalars(select(Note).with_for_update()).one()
        with session_scope(engine) as other:
            append(other, "first")
        note.text += "second"

    assert stored(engine) == ["second"]


def test_file_of_sqlite_that_is_opened_for_reading(engine: Engine) -> None:
    """Text cannot undo that."""
    url = f"sqlite:///file:{engine.url.database}?mode=ro&uri=true"
    reading = create_engine(url, poolclass=NullPool)

    with pytest.raises(DBAPIError, match="readonly"), session_scope(reading) as session:
        session.execute(text("PRAGMA query_only = OFF"))
        session.execute(text("INSERT INTO note (text) VALUES ('written')"))

    assert stored(engine) == []
