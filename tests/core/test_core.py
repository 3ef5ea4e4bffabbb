"""The core where nothing but SQLAlchemy is installed. Run by `nox -s core`."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import QueuePool

import safesession
from safesession import MissingExtra, session_scope


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'core.db'}", poolclass=QueuePool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE note (text TEXT)"))
    yield engine
    engine.dispose()


def stored(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT text FROM note")))


@pytest.mark.parametrize("package", ["anyio", "fastapi", "greenlet", "sqlmodel"])
def test_the_environment_is_bare(package: str) -> None:
    """What follows would prove nothing where the extras are installed."""
    assert find_spec(package) is None


def test_import_alone() -> None:
    """`python -c "import safesession"` works."""
    subprocess.run([sys.executable, "-c", "import safesession"], check=True)


def test_scope_commits(engine: Engine) -> None:
    """A block that ends normally is committed, and its connection given back."""
    with session_scope(engine) as session:
        session.execute(text("INSERT INTO note VALUES ('kept')"))

    assert ["kept"] == stored(engine)
    assert isinstance(engine.pool, QueuePool)
    assert 0 == engine.pool.checkedout()


def test_scope_rolls_back(engine: Engine) -> None:
    """An exception leaves as it is, and nothing is written."""
    error = ValueError("the cause")

    with (
        pytest.raises(ValueError, match="the cause") as caught,
        session_scope(engine) as session,
    ):
        session.execute(text("INSERT INTO note VALUES ('lost')"))
        raise error

    assert error is caught.value
    assert [] == stored(engine)
    assert isinstance(engine.pool, QueuePool)
    assert 0 == engine.pool.checkedout()


def test_async_scope_names_its_extra() -> None:
    """Asking for the async scope says what to install."""
    with pytest.raises(MissingExtra, match=r"safesession\[asyncio\]"):
        _ = safesession.async_session_scope


@pytest.mark.parametrize("part", ["fastapi", "retry"])
def test_part_names_its_extra(part: str) -> None:
    """Importing a part says what to install for it."""
    with pytest.raises(MissingExtra, match=rf"safesession\[{part}\]"):
        import_module(f"safesession.{part}")
