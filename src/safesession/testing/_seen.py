"""What is seen of a unit of work, and what of it shows that a promise is broken."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """What shows that a promise is broken.

    Attributes:
        promise: The number of the promise in the contract.
        example: The smallest unit of work that shows it.
        found: What was seen.
    """

    promise: int
    example: str
    found: str


@dataclass(slots=True)
class Seen:
    """What is to be seen of a unit of work after its end."""

    # What was raised by the call of the driver that was to fail, and in the block,
    failure: BaseException | None
    error: BaseException | None = None
    # and what left; with the links of the block's, as they were and as they are.
    left: BaseException | None = None
    # Whether the client was told of an error, and nothing left.
    answered: bool = False
    links: tuple[Any, ...] = ()
    links_left: tuple[Any, ...] = ()
    # Rows that are new: committed, and found by the next unit on the connection.
    rows: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()
    # What kept the next unit from committing.
    next_error: BaseException | None = None
    checked_out: int = 0
    in_transaction: bool = False
    holds_objects: bool = False
    works_after: bool = False
    # What was written to the log and attached to the exception.
    told: str = ""


def named(error: BaseException) -> str:
    """Return the class of an error, and the first line of its text."""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def in_place(left: BaseException | None) -> str:
    """Tell what was raised to the caller where another exception was expected."""
    if left is None:
        return "no exception reached the caller"
    return f"another one reached the caller: {named(left)}"
