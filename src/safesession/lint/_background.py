"""The rule on sessions that are given to what outlives their request."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from ._flow import Function, With, Yield, inside, within
from ._made import UNSEEN
from ._project import Dependency, Project
from ._provided import Ours, times_bound
from ._rule import Finding
from ._scopes import Scope, scope_in_place
from ._source import Source, parameters

_TASKS = ("add_task", "BackgroundTask")
_STARTS = {"asyncio.create_task", "asyncio.ensure_future"}
_AFTER = "The task runs after the response, and"
_GOES_ON = "The task goes on when the request has ended:"
_REOPENS = "opens again with nobody to close it."
_REFUSES = "refuses what the task would do with it."
_COMMITS = (
    "is committed after the task: where that fails, all is rolled back, though the "
    "client has been answered."
)
_HOLDS = "keeps its connection until the task has ended."


@dataclass(frozen=True)
class _Given:
    """A session that may be given away, and what becomes of it then."""

    name: str
    # In a background task; nothing is said where that is a part of the request.
    later: str | None
    # In a task of asyncio's; nothing is said where it may end in time.
    meanwhile: str | None
    is_async: bool
    arguments: str


def check_background(project: Project) -> Iterator[Finding]:
    """Find sessions of a request that are given to background tasks."""
    for source in project.sources:
        for function in source.functions:
            for session in _sessions(project, source, function):
                yield from _given_away(source, function, session)


def _sessions(project: Project, source: Source, function: Function) -> Iterator[_Given]:
    for name, dependency in project.sessions_of(source, function):
        match dependency.provider:
            case Scope() as scope:
                yield _Given(
                    name,
                    _later(scope, dependency),
                    f"is closed while it is in use, or {_REOPENS}",
                    scope.has_async_session,
                    scope.arguments,
                )
            case Ours() as ours:
                yield _Given(
                    name,
                    _ended(_REFUSES) if ours.ends_first else None,
                    f"is closed while it is in use, or {_REFUSES}",
                    ours.is_async,
                    ours.arguments,
                )
    # When a generator goes on is not seen; and most files have no such task.
    has_tasks = any(word in source.text for word in _TASKS)
    if has_tasks and not any(isinstance(node, Yield) for node in within(function)):
        for opening in project.openings(source, function):
            if (
                isinstance(opening.node, With)
                and (opening.is_ours or opening.is_fresh)
                and times_bound(function, opening.name) == 1
            ):
                yield _Given(
                    opening.name,
                    _ended(_REFUSES if opening.is_ours else _REOPENS),
                    None,
                    isinstance(opening.node, ast.AsyncWith),
                    opening.arguments or UNSEEN,
                )


def _given_away(
    source: Source, function: Function, session: _Given
) -> Iterator[Finding]:
    name = session.name
    for node in within(function):
        if not isinstance(node, ast.Call):
            continue
        if session.later and _is_background(source, function, node):
            given = any(_hands_on(value, name) for value in _arguments(node))
            what = f"{_AFTER} {name!r} {session.later}"
        elif (
            session.meanwhile
            and source.origin(node.func) in _STARTS
            and _is_not_awaited(source, function, node)
        ):
            given = any(
                isinstance(work, ast.Call)
                and any(_hands_on(value, name) for value in _arguments(work))
                for work in node.args[:1]
            )
            what = f"{_GOES_ON} {name!r} {session.meanwhile}"
        else:
            continue
        if given:
            ours = scope_in_place(session.is_async, session.arguments)
            instead = f"pass ids, and open a session in the task: {ours}"
            yield source.finding(node, "SAFE009", what, instead)


def _later(scope: Scope, dependency: Dependency) -> str:
    """Tell what becomes of a generator's session in a background task."""
    match dependency.scope:
        case "function":
            return _ended(_REOPENS)
        case ast.expr():
            return f"is closed by then, or {_HOLDS}"
    return _COMMITS if scope.commits else _HOLDS


def _ended(then: str) -> str:
    return f"is closed by then, and {then}"


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
