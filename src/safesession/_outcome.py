"""The one decision: does a scope end in commit or in rollback?"""

import inspect
from typing import Literal

from ._binds import describe
from .errors import InvalidArgument

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]
Outcome = Literal["commit", "rollback"]


def decide(
    error: BaseException | None, commit_on: tuple[type[BaseException], ...]
) -> Outcome:
    """Return the outcome of a scope whose body raised `error`, or ended normally."""
    # Not isinstance(): it may ask the exception for its __class__, which may raise.
    if error is None or issubclass(type(error), commit_on):
        return "commit"
    return "rollback"


def exception_types(
    call: str, commit_on: ExceptionTypes
) -> tuple[type[BaseException], ...]:
    """Return `commit_on` as a tuple, or raise where it is not exception types."""
    types = commit_on if isinstance(commit_on, tuple) else (commit_on,)
    for given in types:
        if not (inspect.isclass(given) and issubclass(given, BaseException)):
            raise InvalidArgument(
                f"{call}() got {describe(given)} in commit_on. Pass an exception class "
                "or a tuple of them, as in commit_on=(HTTPException,)."
            )
    return types
