"""Correct database sessions for SQLAlchemy, SQLModel and FastAPI."""

from typing import TYPE_CHECKING, Any

from .errors import (
    EngineNotConfigured,
    InvalidArgument,
    MissingExtra,
    SafeSessionError,
    ScopeMisuse,
)

if TYPE_CHECKING:
    from ._aio import async_session_scope
    from ._scope import session_scope

__all__ = [
    "EngineNotConfigured",
    "InvalidArgument",
    "MissingExtra",
    "SafeSessionError",
    "ScopeMisuse",
    "async_session_scope",
    "session_scope",
]


def __getattr__(name: str) -> Any:
    # Imported when asked for: pytest imports this package at each start, for its
    # plugin, and SQLAlchemy takes its time; sqlalchemy.ext.asyncio needs greenlet.
    found: Any
    if name == "session_scope":
        from ._scope import session_scope as found
    elif name == "async_session_scope":
        from ._extras import require

        require("greenlet", extra="asyncio", wanted=name)
        from ._aio import async_session_scope as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
