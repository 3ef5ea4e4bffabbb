"""Who may end the session of a request, besides the endpoint that is looked at."""

import ast

from ._flow import Function, within
from ._project import Dependency, Project
from ._provided import keeps_to_itself
from ._scopes import ENDED_BY, Scope, method_called
from ._source import Source, is_endpoint
from ._work import work_of


def is_ended_elsewhere(
    project: Project, source: Source, function: Function, dependency: Dependency
) -> bool:
    """Tell whether somebody else may commit, roll back or close a session.

    Args:
        project: The files given.
        source: The file of the endpoint.
        function: The endpoint that has the session.
        dependency: How it comes by it.
    """
    provider = dependency.provider
    if isinstance(provider, Scope) and not _is_its_own(project, provider):
        return True
    has_others = any(
        other.provider is not provider for _, other in project.depends(source, function)
    )
    return any(
        _ends(project.scopes[other])
        if other in project.scopes
        else (has_others or other in where.generators)
        and not is_endpoint(other)
        and work_of(project, where, other, name).may_end
        for where, other, name in project.given_to(provider)
    )


def _is_its_own(project: Project, scope: Scope, *above: Scope) -> bool:
    """Tell whether a generator's session can be had from the generator alone."""
    for opening in scope.openings:
        # It is another's, or may be that of a registry.
        if isinstance(opening.node, ast.arg) or (
            not opening.certain and project.mentions("scoped_session")
        ):
            return False
        inner = opening.callee and scope.resolve(opening.callee)
        if inner in above or inner is scope:
            continue
        if inner and not _is_its_own(project, inner, scope, *above):
            return False
    return keeps_to_itself(scope.source, scope.function, scope.names, scope.yields)


def _ends(scope: Scope) -> bool:
    return scope.commits or any(
        method_called(node, scope.names) in ENDED_BY for node in within(scope.function)
    )
