"""The pytest plugin: tests that leak fail, and sessions that are rolled back.

pytest imports this module in each project that has both installed, and so it imports
nothing but pytest: what a fixture needs is imported by the fixture.
"""

from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncSession,
        async_sessionmaker,
    )
    from sqlalchemy.orm import Session, sessionmaker

    from ._joined import Joined

# As which pytest-asyncio may be loaded: by its entry point, or by name.
_PYTEST_ASYNCIO = ("asyncio", "pytest_asyncio.plugin")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "no_session_leaks",
        "Fail each test that leaves a connection checked out or a session open.",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "allow_session_leaks(reason=None): let the test leave connections checked out "
        "and sessions open, where no_session_leaks would fail it for that.",
    )
    if _has_pytest_asyncio(config):
        from . import _joined_asyncio

        config.pluginmanager.register(_joined_asyncio)


def pytest_collection_finish(session: pytest.Session) -> None:
    everywhere: bool = session.config.getini("no_session_leaks")
    watched = {item for item in session.items if _is_watched(item, everywhere)}
    if watched:
        from ._watching import Watching

        session.config.pluginmanager.register(Watching(watched))


@pytest.fixture
def no_session_leaks(request: pytest.FixtureRequest) -> None:
    """Fail the test if it leaves a connection checked out or a session open.

    Checked when the fixtures of the test have been torn down. The ini option of the
    same name does this for every test.

    .. versionadded:: 0.1
    """
    if "no_session_leaks" not in request.node.fixturenames:
        pytest.fail(
            "no_session_leaks was asked for by getfixturevalue(), and the test is "
            "watched from its start. Name it as an argument, or in "
            "@pytest.mark.usefixtures.",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def safesession_bind() -> Any:
    """What the `joined_` fixtures connect to; for you to define.

    Return an engine, or a sessionmaker that is bound to one.

    .. versionadded:: 0.1
    """
    pytest.fail(_undefined("safesession_bind", "engine", "sessionmaker"), pytrace=False)


@pytest.fixture(scope="session")
def safesession_async_bind() -> Any:
    """What the `async_joined_` fixtures connect to; for you to define.

    Return an async engine, or an async_sessionmaker that is bound to one.

    .. versionadded:: 0.1
    """
    names = ("safesession_async_bind", "async engine", "async_sessionmaker")
    pytest.fail(_undefined(*names), pytrace=False)


@pytest.fixture
def joined_connection(_joined: "Joined") -> "Connection":
    """A connection in a transaction that is rolled back after the test.

    .. versionadded:: 0.1
    """
    return _joined.connection  # type: ignore[no-any-return]


@pytest.fixture
def joined_sessionmaker(_joined: "Joined") -> "sessionmaker[Session]":
    """A sessionmaker whose sessions commit within `joined_connection`'s transaction.

    Pass it wherever the code under test takes a bind.

    .. versionadded:: 0.1
    """
    return _joined.sessionmaker  # type: ignore[no-any-return]


@pytest.fixture
def joined_session(_joined: "Joined") -> "Session":
    """A session of `joined_sessionmaker`, closed after the test.

    .. versionadded:: 0.1
    """
    return _joined.session  # type: ignore[no-any-return]


@pytest.fixture
def joined_get_session(_joined: "Joined") -> Any:
    """A FastAPI dependency that gives each request a session of `joined_sessionmaker`.

    .. versionadded:: 0.1
    """
    from safesession.fastapi import session_dependency

    return session_dependency(_joined.sessionmaker)


@pytest.fixture
def async_joined_connection(_async_joined: "Joined") -> "AsyncConnection":
    """An async connection in a transaction that is rolled back after the test.

    .. versionadded:: 0.1
    """
    return _async_joined.connection  # type: ignore[no-any-return]


@pytest.fixture
def async_joined_sessionmaker(
    _async_joined: "Joined",
) -> "async_sessionmaker[AsyncSession]":
    """An async_sessionmaker on `async_joined_connection`.

    .. versionadded:: 0.1
    """
    return _async_joined.sessionmaker  # type: ignore[no-any-return]


@pytest.fixture
def async_joined_session(_async_joined: "Joined") -> "AsyncSession":
    """A session of `async_joined_sessionmaker`, closed after the test.

    .. versionadded:: 0.1
    """
    return _async_joined.session  # type: ignore[no-any-return]


@pytest.fixture
def async_joined_get_session(_async_joined: "Joined") -> Any:
    """A FastAPI dependency on `async_joined_sessionmaker`.

    .. versionadded:: 0.1
    """
    from safesession.fastapi import async_session_dependency

    return async_session_dependency(_async_joined.sessionmaker)


@pytest.fixture
def _joined(safesession_bind: Any) -> "Generator[Joined]":
    from ._joined import joined

    with joined(safesession_bind) as found:
        yield found


@pytest.fixture
def _async_joined(request: pytest.FixtureRequest) -> Any:
    # The connection belongs to the event loop of the test, and so to the plugin that
    # runs the test.
    if "anyio_backend" in request.fixturenames:
        if request.getfixturevalue("anyio_backend_name") != "asyncio":
            pytest.fail(
                "The async_joined_ fixtures need asyncio, as SQLAlchemy does. Define "
                "a fixture anyio_backend that returns 'asyncio'.",
                pytrace=False,
            )
        return request.getfixturevalue("_async_joined_by_anyio")
    if not _has_pytest_asyncio(request.config):
        pytest.fail(
            "The async_joined_ fixtures belong to an event loop, and no plugin runs "
            "this test in one. Mark the test with @pytest.mark.anyio, or install "
            "pytest-asyncio.",
            pytrace=False,
        )
    from ._joined_asyncio import fixture_name

    return request.getfixturevalue(fixture_name(request.node))


# Set up by anyio's plugin, which asks for no decorator.
@pytest.fixture
async def _async_joined_by_anyio(
    safesession_async_bind: Any,
) -> "AsyncGenerator[Joined]":
    from ._joined import async_joined

    async with async_joined(safesession_async_bind) as found:
        yield found


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    return any(map(config.pluginmanager.has_plugin, _PYTEST_ASYNCIO))


def _is_watched(item: pytest.Item, everywhere: bool) -> bool:
    if item.get_closest_marker("allow_session_leaks") is not None:
        return False
    return everywhere or "no_session_leaks" in getattr(item, "fixturenames", ())


def _undefined(fixture: str, engine: str, sessionmaker: str) -> str:
    return (
        "The joined fixtures have no database to connect to. Define a fixture "
        f"{fixture} in your conftest.py that returns your {engine}, or your "
        f"{sessionmaker}."
    )
