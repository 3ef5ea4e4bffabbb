"""The one decision: how does a scope end?"""

import inspect
from typing import Literal

from ._binds import describe
from .errors import InvalidArgument

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]
# ``None`` where nothing is, not even after a normal end: what is read_only.
CommitOn = tuple[type[BaseException], ...] | None
# A "check" is a rollback, once it is seen that there is nothing to commit.
Outcome = Literal["commit", "check", "rollback"]


def decide(error: BaseException | None, commit_on: CommitOn) -> Outcome:
    """Return the outcome of a scope whose body raised `error`, or ended normally."""
    if commit_on is None:
        return "check" if error is None else "rollback"
    # Not isinstance(): it may ask the exception for its __class__, which may raise.
    if error is None or issubclass(type(error), commit_on):
        return "commit"
    return "rollback"


def what_to_commit_on(
    call: str, commit_on: ExceptionTypes, read_only: bool
) -> CommitOn:
    """Return how to `decide`, or raise where that is not what was asked for."""
    if read_only and commit_on != ():
        raise InvalidArgument(
            f"{call}() got read_only=True together with commit_on, and what is "
            "read_only commits nothing. Leave one of them out."
        )
    types = commit_on if isinstance(commit_on, tuple) else (commit_on,)
    for given in types:
        if not (inspect.isclass(given) and issubclass(given, BaseException)):
            raise InvalidArgument(
                f"{call}() got {describe(given)} in commit_on. Pass an exception class "
                "or a tuple of them, as in commit_on=(HTTPException,)."
            )
    return None if read_only else types
