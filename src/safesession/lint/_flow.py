"""What surely runs in a piece of a function, and in which order.

Only what is certain counts: a branch is passed over, and one that may leave the block
makes uncertain what comes after it. Exceptions that no statement raises by name are not
thought of.
"""

import ast
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef
With = ast.With | ast.AsyncWith
For = ast.For | ast.AsyncFor
Yield = ast.Yield | ast.YieldFrom
Parents = dict[ast.AST, ast.AST]
Path = tuple[list[ast.stmt], "End"]

NAMESPACES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_LEAVING = (ast.Raise, ast.Return, ast.Break, ast.Continue)
_EXITS = {"sys.exit", "os._exit", "exit", "quit"}


class End(Enum):
    """How a block ends, if nothing in it raises unseen."""

    FALLS = auto()
    RAISES = auto()
    RETURNS = auto()
    BREAKS = auto()
    CONTINUES = auto()
    UNSURE = auto()


def inside(*nodes: ast.AST) -> Iterator[ast.AST]:
    """Iterate over nodes and what is in them, but not in functions and classes."""
    waiting = [*reversed(nodes)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, NAMESPACES):
            waiting.extend(reversed([*ast.iter_child_nodes(node)]))


def within(function: Function) -> Iterator[ast.AST]:
    """Iterate over what belongs to a function itself."""
    return inside(*function.body)


def parents_of(tree: ast.AST) -> Parents:
    """Return of each node the one that it is in."""
    return {
        child: parent
        for parent in ast.walk(tree)
        for child in ast.iter_child_nodes(parent)
    }


def outwards(node: ast.AST, parents: Parents) -> Iterator[ast.AST]:
    """Iterate over what a node is in, the innermost first."""
    while node in parents:
        node = parents[node]
        yield node


def around(node: ast.AST, parents: Parents) -> Iterator[tuple[ast.AST, str]]:
    """Iterate over the blocks a node is in, in its function, and by which field."""
    for parent in outwards(node, parents):
        if isinstance(parent, NAMESPACES):
            return
        yield parent, _field(node, parent)
        node = parent


def statement_of(node: ast.AST, parents: Parents) -> ast.stmt:
    """Return the statement that an expression is in."""
    while not isinstance(node, ast.stmt):
        node = parents[node]
    return node


def run(block: Sequence[ast.stmt]) -> Path:
    """Return the statements of a block that surely run, and how it ends."""
    reached: list[ast.stmt] = []
    for statement in block:
        reached.append(statement)
        inner, end = _run_one(statement)
        reached += inner
        if end is not End.FALLS:
            return reached, end
    return reached, End.FALLS


def _run_one(statement: ast.stmt) -> Path:
    match statement:
        case ast.Raise():
            return [], End.RAISES
        case ast.Return():
            return [], End.RETURNS
        case ast.Break():
            return [], End.BREAKS
        case ast.Continue():
            return [], End.CONTINUES
        case ast.Expr(ast.Call(callee)) if ast.unparse(callee) in _EXITS:
            return [], End.RAISES
        case ast.With() | ast.AsyncWith():
            return run(statement.body)
        case ast.Try():
            return _run_try(statement)
    leaves = any(isinstance(node, _LEAVING) for node in inside(statement))
    return [], End.UNSURE if leaves else End.FALLS


def _run_try(statement: ast.Try) -> Path:
    reached, end = run([*statement.body, *statement.orelse])
    if statement.handlers and end is End.RAISES:
        end = End.UNSURE
    final, final_end = run(statement.finalbody)
    return reached + final, end if final_end is End.FALLS else final_end


def after(node: ast.AST, parents: Parents, end: End = End.FALLS) -> Path:
    """Return what surely runs after a statement or handler, to its function's end.

    A `with` block stands where it is left, and a loop goes round once more.

    Args:
        node: The statement or handler.
        parents: What each node is in.
        end: How it has ended.
    """
    reached: list[ast.stmt] = []
    for parent, field in around(node, parents):
        following, end = _following(node, parent, field, end)
        reached += following
        node = parent
    if end is End.FALLS:
        following, end = _following(
            node, parents[node], _field(node, parents[node]), end
        )
        reached += following
    return reached, end


def _following(node: ast.AST, parent: ast.AST, field: str, end: End) -> Path:
    reached: list[ast.stmt] = []
    if end is End.FALLS and isinstance(node, ast.stmt):
        block = getattr(parent, field)
        rest = block[block.index(node) + 1 :]
        if isinstance(parent, ast.Try) and field == "body":
            rest += parent.orelse
        reached, end = run(rest)
    if isinstance(parent, ast.Try) and field != "finalbody":
        # It runs whatever has been left, and how.
        final, final_end = run(parent.finalbody)
        reached += final
        end = end if final_end is End.FALLS else final_end
    if isinstance(parent, With):
        reached.append(parent)
    if isinstance(parent, For | ast.While) and field == "body":
        if end in (End.FALLS, End.CONTINUES):
            again, end = run(parent.body)
            reached += again
        if end in (End.FALLS, End.CONTINUES, End.BREAKS):
            end = End.FALLS
    return reached, end


def _field(node: ast.AST, parent: ast.AST) -> str:
    fields: dict[str, Any] = dict(ast.iter_fields(parent))
    return next(
        field
        for field, value in fields.items()
        if value is node or (isinstance(value, list) and node in value)
    )
