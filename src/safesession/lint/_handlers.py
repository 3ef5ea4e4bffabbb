"""What a handler does with the exception that it catches."""

import ast
import re

from ._flow import End, inside, run, within
from ._scopes import Scope

BROAD = {"Exception", "BaseException"}
# Whoever is given an exception, and is named so, may raise it.
_LOGGING = re.compile(
    r"log|print|warn|capture|record|report|notify|error|exception|debug|info|str|repr"
    r"|format|isinstance|type|traceback",
    re.IGNORECASE,
)
_RAISING = re.compile(
    r"raise|abort|fail|exit|throw|handle|convert|translate", re.IGNORECASE
)


def keeps(scope: Scope, handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler surely raises nothing in place of what it catches."""
    reached, end = run(handler.body)
    return end not in (End.RAISES, End.UNSURE) and not (
        _may_raise(scope, handler, reached) or _raises_later(scope, handler)
    )


def _may_raise(
    scope: Scope, handler: ast.ExceptHandler, reached: list[ast.stmt]
) -> bool:
    """Tell whether something is called that may raise the exception for it."""
    for node in inside(*reached):
        if not isinstance(node, ast.Call):
            continue
        callee = ast.unparse(node.func)
        given = {part.id for part in node.args if isinstance(part, ast.Name)}
        if _RAISING.search(callee.rpartition(".")[2]):
            return True
        if handler.name in given and not _LOGGING.search(callee):
            return True
    return False


def _raises_later(scope: Scope, handler: ast.ExceptHandler) -> bool:
    """Tell whether the exception may be raised from further down."""
    last = handler.body[-1].lineno
    return any(
        isinstance(node, ast.Raise) and node.lineno > last
        for node in within(scope.function)
    )


def caught_by(handler: ast.ExceptHandler) -> str:
    """Tell that a handler keeps what it catches."""
    caught = f"`except {ast.unparse(handler.type)}`" if handler.type else "`except`"
    return f"{caught} does not raise again"
