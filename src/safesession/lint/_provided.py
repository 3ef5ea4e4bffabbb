"""What gives a session to those who depend on it, besides a generator."""

import ast
from collections.abc import Container
from dataclasses import dataclass

from ._flow import Function, Yield, within
from ._made import UNSEEN, arguments_of, bind_of
from ._scopes import Opening, method_called
from ._source import Source

# What a function itself may do with a session that nobody else is to see.
_OWN = {"begin", "close", "commit", "execute", "expunge_all", "rollback"}


@dataclass(frozen=True, eq=False)
class Ours:
    """A dependency of this library, which commits before the response."""

    is_async: bool
    # It is seen to end before the response, and so before background tasks.
    ends_first: bool
    arguments: str


@dataclass(frozen=True, eq=False)
class Returned:
    """A function that returns a session of its own making, which it cannot close."""

    source: Source
    function: Function
    place: ast.Return
    arguments: str


def ours_of(source: Source, node: ast.AST) -> Ours | None:
    """Return what a call of ours makes, if it is one."""
    if not isinstance(node, ast.Call) or not source.is_our_dependency(node.func):
        return None
    keywords = {word.arg: word.value for word in node.keywords}
    scope = keywords.get("scope", ast.Constant("function"))
    bind = bind_of(node)
    named = isinstance(bind, ast.Name | ast.Attribute)
    return Ours(
        source.origin(node.func).endswith(".async_session_dependency"),
        isinstance(scope, ast.Constant) and scope.value == "function",
        arguments_of(node, ast.unparse(bind) if bind and named else None) or UNSEEN,
    )


def returned_of(
    source: Source, function: Function, openings: list[Opening]
) -> Returned | None:
    """Return a function as one that returns its own session, if it surely does."""
    returns = [node for node in within(function) if isinstance(node, ast.Return)]
    if not returns or any(isinstance(node, Yield) for node in within(function)):
        return None
    fresh = [opening for opening in openings if opening.is_fresh]
    named = [opening.name for opening in fresh if opening.name]
    if any(times_bound(function, name) != named.count(name) for name in named):
        return None
    for node in returns:
        by_name = isinstance(node.value, ast.Name) and node.value.id in named
        if not by_name and all(opening.node is not node for opening in fresh):
            return None
    if not keeps_to_itself(source, function, {*named}, returns):
        return None
    arguments = next(filter(None, (one.arguments for one in fresh)), UNSEEN)
    return Returned(source, function, returns[0], arguments)


def times_bound(function: Function, name: str) -> int:
    """Return how often a name is bound in a function."""
    return sum(
        isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
        and node.id == name
        for node in ast.walk(function)
    )


def keeps_to_itself(
    source: Source, function: Function, names: set[str], given: Container[ast.AST]
) -> bool:
    """Tell whether a function gives its session to nobody but by some statements."""
    for node in ast.walk(function):
        match node:
            case ast.Name(name, ast.Load()) if name in names:
                parent = source.parents[node]
                method = method_called(source.parents[parent], names)
                if parent not in given and method not in _OWN:
                    return False
    return True
