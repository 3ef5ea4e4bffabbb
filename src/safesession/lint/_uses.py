"""The rules on what is done with session generators, and with their sessions."""

import ast
from collections.abc import Iterator

from ._flow import End, For, around, inside, outwards, run
from ._project import Dependency, Project
from ._provided import Ours
from ._rule import Finding
from ._scopes import (
    Scope,
    dependency_in_place,
    method_called,
    scope_in_place,
    types_of,
)
from ._source import Source

_NEXT = {"next", "anext", "builtins.next", "builtins.anext"}
_NEXT_METHODS = {"__next__", "__anext__", "send", "asend"}


def check_uses(project: Project) -> Iterator[Finding]:
    """Find what is wrong with the uses of session generators and dependencies."""
    has_ours = project.mentions("session_dependency")
    for source in project.sources:
        for node in source.nodes:
            if isinstance(node, ast.Call):
                yield from _taken_by_next(project, source, node)
                if has_ours:
                    yield from _called_by_hand(project, source, node)
            elif isinstance(node, For):
                yield from _left_loop(project, source, node)
    for dependency in project.dependencies.values():
        match dependency:
            case Dependency(provider=Scope() as scope, managed=True):
                yield _context_manager(dependency, scope)


def _taken_by_next(
    project: Project, source: Source, node: ast.Call
) -> Iterator[Finding]:
    match node:
        case ast.Call(callee, [ast.Call(made), *_]) if source.origin(callee) in _NEXT:
            pass
        case ast.Call(ast.Attribute(ast.Call(made), method)) if method in _NEXT_METHODS:
            pass
        case _:
            return
    found = project.resolve(source, made)
    if found is None or found[1]:
        return
    scope, _ = found
    if _is_expected_to_raise(source, node) or _is_closed_by_hand(source, node, scope):
        return
    when = (
        "when the event loop gets to it, in the midst of your work"
        if scope.is_async
        else "at once, before the session is used"
    )
    lost = " nothing commits the work, and" if scope.commits else ""
    yield source.finding(
        node,
        "SAFE008",
        f"Nobody holds the generator {scope.name}(): Python closes it {when};{lost} "
        "the session opens again with nobody to close it.",
        scope_in_place(scope.has_async_session, scope.arguments),
    )


def _called_by_hand(
    project: Project, source: Source, node: ast.Call
) -> Iterator[Finding]:
    match node:
        # Given a session, it returns that.
        case ast.Call(ast.Name(name) | ast.Attribute(_, name), [], []):
            ours = project.provider(source, node.func)
        case _:
            return
    if (
        not isinstance(ours, Ours)
        or _is_expected_to_raise(source, node)
        or _is_replaced(project, source, name)
    ):
        return
    called = ast.unparse(node.func)
    maker = "async_session_dependency" if ours.is_async else "session_dependency"
    instead = scope_in_place(ours.is_async, ours.arguments)
    match source.parents[node]:
        case ast.Await():
            what = "awaited by itself, it raises ScopeMisuse"
        case ast.Call(callee) if source.is_of_fastapi(callee, "Depends", "Security"):
            what = "called for it, it returns a coroutine, which Depends() refuses"
            instead = f"give Depends() the name: Depends({called})"
        case _:
            what = (
                "called by itself, it returns a coroutine, which is no session, "
                "no generator and no context manager"
            )
    yield source.finding(
        node,
        "SAFE008",
        f"{called} comes of {maker}(), and is for Depends() alone: {what}.",
        instead,
    )


def _is_replaced(project: Project, source: Source, name: str) -> bool:
    """Tell whether a test of this file puts something else in the place of a name."""
    path = source.path.resolve()
    return any(
        _replaces(node, name)
        for other in project.sources
        if other is source
        or (
            other.path.name == "conftest.py"
            and path.is_relative_to(other.path.resolve().parent)
        )
        for node in other.nodes
    )


def _replaces(node: ast.AST, name: str) -> bool:
    match node:
        case ast.Attribute(_, attribute, ast.Store()):
            return attribute == name
        case ast.Call(_, given):
            # As by setattr() and patch().
            return any(
                isinstance(one, ast.Constant)
                and isinstance(one.value, str)
                and one.value.rpartition(".")[2] == name
                for one in given
            )
    return False


def _is_expected_to_raise(source: Source, node: ast.AST) -> bool:
    """Tell whether it stands in a block such as that of pytest.raises()."""
    for block, field in around(node, source.parents):
        match block:
            case ast.With(items) | ast.AsyncWith(items):
                if any(_is_raises(source, item.context_expr) for item in items):
                    return True
            case ast.Try(handlers=handlers) if field == "body":
                if any("ScopeMisuse" in types_of(handler) for handler in handlers):
                    return True
    return False


def _is_raises(source: Source, node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and source.origin(node.func).endswith(
        ("raises", "assertRaises")
    )


def _is_closed_by_hand(source: Source, node: ast.AST, scope: Scope) -> bool:
    """Tell whether the caller closes the session, of which no commit is expected."""
    statement = next(
        one for one in outwards(node, source.parents) if isinstance(one, ast.stmt)
    )
    match statement:
        case ast.Assign([ast.Name(name)]) if not scope.commits:
            function = next(iter(source.functions_around(node)), source.tree)
            return any(
                method_called(call, {name}) in ("close", "aclose")
                for call in inside(*function.body)
            )
    return False


def _left_loop(
    project: Project, source: Source, loop: ast.For | ast.AsyncFor
) -> Iterator[Finding]:
    if not isinstance(loop.iter, ast.Call):
        return
    found = project.resolve(source, loop.iter.func)
    if found is None or found[1]:
        return
    scope, _ = found
    _, end = run(loop.body)
    leaves = end in (End.RETURNS, End.BREAKS)
    passes_on = scope.is_async and any(
        isinstance(node, ast.Yield) for node in inside(*loop.body)
    )
    if not (passes_on or (leaves and (scope.is_async or scope.commits))):
        return
    how = "by `return` or `break`" if leaves else "by an exception at the yield"
    what = (
        "is not told, and its session stays open until the event loop gets to close it"
        if scope.is_async
        else "is closed where it stands"
    )
    lost = "; what it would have committed is lost" if leaves and scope.commits else ""
    yield source.finding(
        loop.iter,
        "SAFE008",
        f"The loop is left {how}: the generator {scope.name}() {what}{lost}.",
        scope_in_place(scope.has_async_session, scope.arguments),
    )


def _context_manager(dependency: Dependency, scope: Scope) -> Finding:
    return dependency.source.finding(
        dependency.call,
        "SAFE011",
        f"{scope.name}() was made a context manager: FastAPI passes on that object, "
        "which is no session, or fails to iterate over it, and each request is a 500.",
        "give Depends() the generator, without the decorator; or use "
        + dependency_in_place(scope.has_async_session, scope.arguments),
    )
