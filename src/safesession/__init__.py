"""Correct database sessions for SQLAlchemy, SQLModel and FastAPI."""

from typing import TYPE_CHECKING, Any

from ._scope import session_scope
from .errors import (
    EngineNotConfigured,
    InvalidArgument,
    MissingExtra,
    SafeSessionError,
    ScopeMisuse,
)

if TYPE_CHECKING:
    from ._aio import async_session_scope

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
    # Imported when asked for, as sqlalchemy.ext.asyncio needs greenlet.
    if name != "async_session_scope":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._extras import require

    require("greenlet", extra="asyncio", wanted="async_session_scope")
    from ._aio import async_session_scope

    globals()[name] = async_session_scope
    return async_session_scope
