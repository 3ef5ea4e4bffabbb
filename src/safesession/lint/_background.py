"""The rule on sessions that are given to what outlives their request."""

import ast
from collections.abc import Iterator

from ._flow import Function, inside, within
from ._project import Dependency, Project
from ._rule import Finding
from ._scopes import Scope, scope_in_place
from ._source import Source, parameters

_STARTS = {"asyncio.create_task", "asyncio.ensure_future"}


def check_background(project: Project) -> Iterator[Finding]:
    """Find sessions of dependencies that are given to background tasks."""
    for source in project.sources:
        for function in source.functions:
            for name, dependency in project.sessions_of(source, function):
                yield from _given_away(source, function, name, dependency)


def _given_away(
    source: Source, function: Function, name: str, dependency: Dependency
) -> Iterator[Finding]:
    for node in within(function):
        if not isinstance(node, ast.Call):
            continue
        if _is_background(source, function, node):
            given = any(_hands_on(value, name) for value in _arguments(node))
            what = f"The task runs after the response, and {name!r}"
            what += _waiting(dependency.scope)
        elif source.origin(node.func) in _STARTS and _is_not_awaited(
            source, function, node
        ):
            given = any(
                isinstance(work, ast.Call)
                and any(_hands_on(value, name) for value in _arguments(work))
                for work in node.args[:1]
            )
            what = (
                f"The task goes on when the request has ended: {name!r} is closed "
                "while it is in use, or opens again with nobody to close it."
            )
        else:
            continue
        if given:
            yield source.finding(node, "SAFE009", what, _of_its_own(dependency.scope))


def _of_its_own(scope: Scope) -> str:
    return f"pass ids, and open a session in the task: {scope_in_place(scope)}"


def _waiting(scope: Scope) -> str:
    """Tell what becomes of a session whose end waits for the task."""
    closed = (
        'with scope="function" it is closed by then, and opens again with nobody to '
        "close it."
    )
    if scope.commits:
        return (
            " is committed when it has ended, or rolled back where it fails, though "
            f"the client has been answered; {closed}"
        )
    return f" keeps its connection until it has ended; {closed}"


def _is_background(source: Source, function: Function, node: ast.Call) -> bool:
    match node.func:
        case ast.Attribute(ast.Name(tasks), "add_task"):
            return "background" in tasks.lower() or any(
                parameter.arg == tasks
                and source.origin(parameter.annotation).endswith("BackgroundTasks")
                for parameter in parameters(function)
            )
    return source.origin(node.func) in (
        "fastapi.BackgroundTask",
        "fastapi.background.BackgroundTask",
        "starlette.background.BackgroundTask",
    )


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(word.value for word in call.keywords)]


def _hands_on(value: ast.expr, name: str) -> bool:
    """Tell whether an argument is a session, or a callable that holds it."""
    match value:
        case ast.Name(given):
            return given == name
        case ast.Lambda(_, body):
            return any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(body))
        case ast.Call(ast.Name("partial") | ast.Attribute(_, "partial")):
            return any(_hands_on(part, name) for part in _arguments(value))
    return False


def _is_not_awaited(source: Source, function: Function, node: ast.Call) -> bool:
    match source.parents[node]:
        case ast.Expr():
            return True
        case ast.Assign([ast.Name(task)]):
            return not any(
                isinstance(part, ast.Name) and part.id == task
                for wait in within(function)
                if isinstance(wait, ast.Await | ast.Return)
                for part in inside(wait)
            )
    return False
