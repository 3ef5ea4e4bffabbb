"""The rule on sessions that a cancellation leaves open."""

import ast
from collections.abc import Iterator

from ._flow import Function, inside, within
from ._made import UNSEEN
from ._project import Project
from ._rule import Finding
from ._scopes import Opening, method_called, scope_in_place, types_of
from ._source import Source


def check_cancelled(project: Project) -> Iterator[Finding]:
    """Find sessions of async functions that are ended by `except Exception` alone."""
    for source in project.sources:
        for function in source.functions:
            if isinstance(function, ast.AsyncFunctionDef):
                for opening in project.openings(source, function):
                    yield from _left_open(source, function, opening)


def _left_open(
    source: Source, function: Function, opening: Opening
) -> Iterator[Finding]:
    name = opening.name
    if not isinstance(opening.node, ast.Assign | ast.AnnAssign):
        return
    if not _is_closed(function, name) or _is_seen_to(function, name):
        return
    for node in within(function):
        if isinstance(node, ast.Try) and _waits(node):
            for handler in node.handlers:
                # It is for Exception: what another has to do with it was seen before.
                if _ends(handler, name):
                    yield source.finding(
                        handler,
                        "SAFE007",
                        f"A cancellation is no Exception: where it reaches this `try` "
                        f"of {function.name}(), {name!r} is neither rolled back nor "
                        "closed, and its connection stays out until the garbage "
                        "collector drops it.",
                        f"open {name!r} by `async with`, or close it in `finally`; or "
                        f"use {scope_in_place(True, opening.arguments or UNSEEN)}",
                    )


def _ends(node: ast.AST, name: str) -> bool:
    # Awaited: a sync session that nobody holds is closed by the garbage collector.
    return any(
        isinstance(wait, ast.Await)
        and method_called(wait.value, {name}) in ("rollback", "close")
        for wait in inside(node)
    )


def _is_closed(function: Function, name: str) -> bool:
    """Tell whether closing the session is the function's own affair."""
    return any(
        method_called(call, {name}) in ("close", "aclose") for call in within(function)
    )


def _waits(node: ast.Try) -> bool:
    """Tell whether a cancellation may reach the body of a `try`."""
    return any(
        isinstance(part, ast.Await | ast.Yield | ast.AsyncFor | ast.AsyncWith)
        for part in inside(*node.body)
    )


def _is_seen_to(function: Function, name: str) -> bool:
    """Tell whether somebody may end the session whatever is raised."""
    places: list[ast.AST] = []
    for node in within(function):
        match node:
            case ast.Try():
                places += node.finalbody
                places += (h for h in node.handlers if types_of(h) != {"Exception"})
            case ast.With() | ast.AsyncWith():
                places += node.items
            case ast.Return():
                places.append(node)
            case ast.Call() if method_called(node, {name}) is None:
                # Given to somebody, who may close it.
                places += [node.func, *node.args, *node.keywords]
            case ast.Assign() if not isinstance(node.targets[0], ast.Name):
                places.append(node.value)
    return any(
        isinstance(part, ast.Name) and part.id == name for part in inside(*places)
    )
