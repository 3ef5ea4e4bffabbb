import os
from pathlib import Path
from tempfile import mkdtemp

import pytest

# Each worker of pytest-xdist is a process with a database of its own.
os.environ["NOTES_DATABASE"] = str(Path(mkdtemp()) / "notes.db")

import notes

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def safesession_bind():
    notes.Base.metadata.create_all(notes.engine)
    return notes.engine


@pytest.fixture
async def safesession_async_bind(safesession_bind):
    yield notes.async_engine
    # Its pool holds connections of this test's event loop.
    await notes.async_engine.dispose()


@pytest.fixture(autouse=True)
def nothing_is_left(safesession_bind):
    yield
    with safesession_bind.connect() as connection:
        assert connection.scalar(notes.select(notes.func.count(notes.Note.id))) == 0


@pytest.fixture
def app(joined_get_session):
    notes.app.dependency_overrides[notes.get_session] = joined_get_session
    yield notes.app
    notes.app.dependency_overrides.clear()


@pytest.fixture
def async_app(async_joined_get_session):
    notes.app.dependency_overrides[notes.get_async_session] = async_joined_get_session
    yield notes.app
    notes.app.dependency_overrides.clear()
