"""The contract as a kit: hold any session factory against it, and test your service.

Nothing here is for production: `verify` makes a table of its own in the database.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safesession._extras import require

if TYPE_CHECKING:
    from ._exceptions import exceptions
    from ._report import ContractBroken, Report
    from ._verify import verify

__all__ = ["ContractBroken", "Report", "exceptions", "verify"]

_MODULES = {
    "ContractBroken": "_report",
    "Report": "_report",
    "exceptions": "_exceptions",
    "verify": "_verify",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: pytest imports this package at each start, for its
    # plugin, and Hypothesis may be absent.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "exceptions":
        require("hypothesis", extra="hypothesis", wanted=f"{__name__}.exceptions")
    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found
