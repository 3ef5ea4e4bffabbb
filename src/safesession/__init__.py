"""Correct database sessions for SQLAlchemy, SQLModel and FastAPI."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._aio import async_session_scope
    from ._scope import session_scope
    from .errors import (
        EngineNotConfigured,
        InvalidArgument,
        MissingExtra,
        OutcomeUnknown,
        SafeSessionError,
        ScopeMisuse,
        WriteRefused,
    )

__all__ = [
    "EngineNotConfigured",
    "InvalidArgument",
    "MissingExtra",
    "OutcomeUnknown",
    "SafeSessionError",
    "ScopeMisuse",
    "WriteRefused",
    "async_session_scope",
    "session_scope",
]
_MODULES = {"async_session_scope": "_aio", "session_scope": "_scope"}


def __getattr__(name: str) -> Any:
    # Imported when asked for: pytest imports this package at each start, for its
    # plugin, and SQLAlchemy takes its time; sqlalchemy.ext.asyncio needs greenlet.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "async_session_scope":
        from ._extras import require

        require("greenlet", extra="asyncio", wanted=name)
    module = import_module(f".{_MODULES.get(name, 'errors')}", __name__)
    found = globals()[name] = getattr(module, name)
    return found
