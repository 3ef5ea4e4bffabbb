"""The rules on what is done with session generators, and with their sessions."""

import ast
from collections.abc import Iterator

from ._flow import End, For, With, around, inside, outwards, run
from ._project import Dependency, Project
from ._rule import Finding
from ._scopes import Scope, dependency_in_place, method_called, scope_in_place
from ._source import Source

_NEXT = {"next", "anext", "builtins.next", "builtins.anext"}
_NEXT_METHODS = {"__next__", "__anext__", "send", "asend"}


def check_uses(project: Project) -> Iterator[Finding]:
    """Find what is wrong with the uses of the project's session generators."""
    for source in project.sources:
        for node in source.nodes:
            if isinstance(node, ast.Call):
                yield from _taken_by_next(project, source, node)
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


def _is_expected_to_raise(source: Source, node: ast.AST) -> bool:
    """Tell whether it stands in a block such as that of pytest.raises()."""
    return any(
        isinstance(item.context_expr, ast.Call)
        and source.origin(item.context_expr.func).endswith(("raises", "assertRaises"))
        for block, _ in around(node, source.parents)
        if isinstance(block, With)
        for item in block.items
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
