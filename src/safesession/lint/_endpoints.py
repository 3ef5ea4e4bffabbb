"""The rules on what an endpoint does with a session that it depends on."""

import ast
from collections.abc import Iterator

from ._flow import Function, Yield
from ._others import is_ended_elsewhere
from ._project import Dependency, Project
from ._provided import Returned
from ._rule import Finding
from ._scopes import Scope, dependency_in_place, replacement
from ._source import Source, is_endpoint
from ._work import work_of

_STREAMS = ("StreamingResponse", "SourceResponse")


def check_endpoints(project: Project) -> Iterator[Finding]:
    """Find endpoints whose work is lost, or late, or whose session nobody closes."""
    told: set[object] = set()
    for source in project.sources:
        for function in filter(is_endpoint, source.functions):
            for name, dependency in project.sessions_of(source, function):
                work = work_of(project, source, function, name)
                if work.may_end or is_ended_elsewhere(
                    project, source, function, dependency
                ):
                    continue
                match dependency.provider:
                    case Scope(commits=False) as scope if work.writes:
                        if _is_lost(project, scope):
                            yield _never_committed(
                                source, work.writes, function, name, scope
                            )
                    case Scope() as scope if work.writes:
                        # Once, for an alias that many endpoints have.
                        if dependency not in told and _is_late(
                            source, function, dependency
                        ):
                            told.add(dependency)
                            yield _answered(dependency, scope, function)
                    case Returned() as returned if work.reads:
                        if returned in told or project.mentions("close_all_sessions"):
                            continue
                        told.add(returned)
                        is_async = isinstance(source.parents[work.reads], ast.Await)
                        yield _unclosed(returned, function, is_async)


def _is_lost(project: Project, scope: Scope) -> bool:
    """Tell whether a session that nobody commits keeps nothing."""
    return all(opening.certain for opening in scope.openings) and not project.mentions(
        "autocommit", "scoped_session"
    )


def _never_committed(
    source: Source, wrote: ast.AST, function: Function, name: str, scope: Scope
) -> Finding:
    return source.finding(
        wrote,
        "SAFE005",
        f"{function.name}() writes to {name!r}, and neither it nor {scope.name}() "
        "commits: the client is told of success, and the close rolls it all back.",
        f"call `{name}.commit()`; or {replacement(scope)}",
    )


def _is_late(source: Source, function: Function, dependency: Dependency) -> bool:
    """Tell whether what the endpoint writes is committed after its response."""
    if dependency.scope is not None:
        return False
    # A stream needs its session for as long as it lasts.
    return not any(
        isinstance(node, Yield)
        or (
            isinstance(node, ast.Name | ast.Attribute)
            and source.origin(node).endswith(_STREAMS)
        )
        for node in ast.walk(function)
    )


def _answered(dependency: Dependency, scope: Scope, function: Function) -> Finding:
    return dependency.source.finding(
        dependency.call,
        "SAFE010",
        f"What {function.name}() writes is committed by {scope.name}() after the "
        "response, since FastAPI 0.118: the client has its 2xx when the commit fails, "
        "and may ask before there is anything to find.",
        f'write Depends({scope.name}, scope="function"), the same everywhere; or '
        f"{replacement(scope)}",
    )


def _unclosed(returned: Returned, function: Function, is_async: bool) -> Finding:
    ours = dependency_in_place(is_async, returned.arguments)
    return returned.source.finding(
        returned.place,
        "SAFE013",
        f"{returned.function.name}() returns a session that nobody closes: the "
        f"connection that {function.name}() has of it stays out of the pool until the "
        "garbage collector comes by.",
        f"yield the session, in a `with` block; or use {ours}",
    )
