"""The joined fixture for tests of pytest-asyncio; registered where that is loaded."""

from collections.abc import AsyncGenerator, Mapping
from importlib import import_module
from typing import Any

import pytest

_SCOPES = ("function", "class", "module", "package", "session")


def fixture_name(item: pytest.Item) -> str:
    """Return the name of the fixture that runs in the event loop of a test."""
    marker = item.get_closest_marker("asyncio")
    options: Mapping[str, Any] = {} if marker is None else marker.kwargs
    default = item.config.getini("asyncio_default_test_loop_scope")
    return f"_joined_in_loop_of_{options.get('loop_scope') or default}"


def _fixture(loop_scope: str) -> Any:
    async def joined(safesession_async_bind: Any) -> AsyncGenerator[Any]:
        from ._joined import async_joined

        async with async_joined(safesession_async_bind) as found:
            yield found

    fixture = import_module("pytest_asyncio").fixture
    name = f"_joined_in_loop_of_{loop_scope}"
    return fixture(loop_scope=loop_scope, name=name)(joined)


for _scope in _SCOPES:
    globals()[f"_joined_{_scope}"] = _fixture(_scope)
