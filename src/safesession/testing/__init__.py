"""The contract as a kit: hold any session factory against it, and test your service.

Nothing here is for production: `verify` makes a table of its own in the database.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._exceptions import exceptions

__all__ = ["exceptions"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, as it needs Hypothesis.
    if name != "exceptions":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from safesession._extras import require

    require("hypothesis", extra="hypothesis", wanted="safesession.testing.exceptions")
    from ._exceptions import exceptions

    return exceptions
