"""The rule on sessions that have ended when the response is streamed."""

import ast
from collections.abc import Iterator

from ._flow import Function, With, Yield, within
from ._project import Dependency, Project
from ._provided import Ours, times_bound
from ._rule import Finding
from ._scopes import Scope, dependency_in_place, method_called, scope_in_place
from ._source import Source, is_endpoint, parameters
from ._work import Work, parameter_given, work_of

_STREAMS = {
    "fastapi.responses.StreamingResponse",
    "starlette.responses.StreamingResponse",
}


def check_streams(project: Project) -> Iterator[Finding]:
    """Find streams that use a session which ends before the response is sent."""
    for source in project.sources:
        # Most files have none.
        if "StreamingResponse" in source.text:
            for function in filter(is_endpoint, source.functions):
                for name, dependency in project.sessions_of(source, function):
                    if times_bound(function, name) == 0:
                        yield from _streamed(
                            project, source, function, name, dependency
                        )


def _streamed(
    project: Project,
    source: Source,
    function: Function,
    name: str,
    dependency: Dependency,
) -> Iterator[Finding]:
    match dependency.provider:
        case Ours(ends_first=True) as ours:
            is_async, arguments = ours.is_async, ours.arguments
            then = "refuses what the stream would do with it, which breaks off"
        case Scope() as scope if dependency.scope == "function" and _closes(scope):
            is_async, arguments = scope.has_async_session, scope.arguments
            then = "opens again with nobody to close it"
        case _:
            return
    # Then what the stream ends itself is sound.
    resets = isinstance(dependency.provider, Scope) or project.mentions(
        "close_resets_only"
    )
    for made in _given_to_streams(source, function):
        work = _work_of(project, source, function, name, made)
        if (work.reads or work.writes) and not (resets and work.may_end):
            lasting = dependency_in_place(is_async, f'{arguments}, scope="request"')
            yield source.finding(
                made,
                "SAFE014",
                f"{ast.unparse(made.func)}() runs when the response is sent: {name!r} "
                f"is closed by then, and {then}.",
                f"open a session in it: {scope_in_place(is_async, arguments)}; or take "
                f"one that lasts, of a dependency of its own: {lasting}",
            )


def _closes(scope: Scope) -> bool:
    """Tell whether a generator closes a session that nobody else has."""
    return all(opening.is_fresh for opening in scope.openings) and any(
        (isinstance(node, With) and scope.opened_by(node))
        or method_called(node, scope.names) == "close"
        for node in within(scope.function)
    )


def _given_to_streams(source: Source, function: Function) -> Iterator[ast.Call]:
    """Iterate over the calls that a StreamingResponse is given the result of."""
    for node in within(function):
        match node:
            case ast.Call(callee, given, words) if source.origin(callee) in _STREAMS:
                content = (word.value for word in words if word.arg == "content")
                for made in [*given[:1], *content]:
                    if isinstance(made, ast.Call):
                        yield made


def _work_of(
    project: Project, source: Source, function: Function, name: str, made: ast.Call
) -> Work:
    """Return what a generator does with a session, by its closure or a parameter."""
    found = project.function(source, made.func)
    if found is None:
        return Work()
    where, generator = found
    if not any(isinstance(node, Yield) for node in within(generator)):
        return Work()
    given = [*made.args, *(word.value for word in made.keywords)]
    for argument in given:
        if isinstance(argument, ast.Name) and argument.id == name:
            parameter = parameter_given(generator, made, argument)
            if parameter and times_bound(generator, parameter) == 0:
                return work_of(project, where, generator, parameter)
    is_bound = any(parameter.arg == name for parameter in parameters(generator))
    if where.functions_around(generator)[:1] == [function] and not is_bound:
        return work_of(project, where, generator, name)
    return Work()
