"""What a session is made with: an engine, or a sessionmaker, by the name it has."""

import ast
from collections.abc import Callable

from ._flow import Function, within
from ._source import Source, parameters

# What to write where the name cannot be seen.
UNSEEN = "engine"
IsMaker = Callable[[ast.expr], bool]


def is_begun(call: ast.Call) -> bool:
    """Tell whether a call may be that of a sessionmaker's begin()."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "begin"


def maker_of(call: ast.Call) -> ast.expr:
    """Return what would be the sessionmaker that a call opens a session of."""
    match call.func:
        case ast.Attribute(maker, "begin"):
            return maker
    return call.func


def made_with(
    source: Source, function: Function, call: ast.Call, is_maker: IsMaker
) -> str | None:
    """Return the arguments that make the same session of ours, if they can be seen."""
    maker = maker_of(call)
    if is_maker(maker):
        found: ast.expr | None = maker
    elif isinstance(maker, ast.Call) and source.is_maker_call(maker):
        found, call = bind_of(maker), maker
    elif source.is_session_class(maker) or source.is_our_scope(maker):
        found = bind_of(call)
    else:
        return None
    return arguments_of(call, _named(function, found), source.sqlmodel_class(maker))


def arguments_of(
    call: ast.Call, bind: str | None, class_: ast.expr | None = None
) -> str | None:
    """Return a bind, and with it the session class that is asked for."""
    keywords = {word.arg: word.value for word in call.keywords}
    if class_ := keywords.get("class_", class_):
        return f"{bind or UNSEEN}, class_={ast.unparse(class_)}"
    return bind


def bind_of(call: ast.Call) -> ast.expr | None:
    """Return what a session, a sessionmaker or a dependency of ours is bound to."""
    keywords = {word.arg: word.value for word in call.keywords}
    return next(iter(call.args), keywords.get("bind"))


def _named(function: Function, found: ast.expr | None) -> str | None:
    """Return an expression as it is written, if it means the same elsewhere."""
    root = found
    while isinstance(root, ast.Attribute):
        root = root.value
    if found is None or not isinstance(root, ast.Name):
        return None
    if root.id in _local(function) and root.id != "self":
        return None
    return ast.unparse(found)


def _local(function: Function) -> set[str]:
    return {parameter.arg for parameter in parameters(function)} | {
        node.id
        for node in within(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
