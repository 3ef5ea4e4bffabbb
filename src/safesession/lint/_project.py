"""The files given, and what the names in them stand for across files."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from ._flow import Function, within
from ._scopes import (
    CONTEXT_MANAGERS,
    Opening,
    Scope,
    method_called,
    openings_of,
    scope_of,
)
from ._source import Source, parameters

# How many times a name may be imported on before it is given up.
_HOPS = 8
# What a generator itself may do with a session that nobody else is to see.
_OWN = {"rollback", "close", "expunge_all", "execute"}


@dataclass(frozen=True)
class Dependency:
    """A call of Depends(), and the generator that it names."""

    source: Source
    call: ast.Call
    scope: Scope
    # It names a context manager that was made of the generator.
    managed: bool


class Project:
    """All that is checked at once."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = [*sources]
        self._modules: dict[str, list[Source]] = defaultdict(list)
        for source in self.sources:
            parts = source.path.resolve().with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            for start in range(len(parts)):
                self._modules[".".join(parts[start:])].append(source)
        self._bound: dict[ast.AST, dict[str, list[ast.stmt]]] = {}
        self.scopes: dict[Function, Scope] = {}
        self._find_scopes()

    def _find_scopes(self) -> None:
        """Find the generators, and then those that pass on what these yield."""
        found = -1
        while found < len(self.scopes):
            found = len(self.scopes)
            for source in self.sources:
                resolve = partial(self.scope, source)
                is_maker = partial(self.is_maker, source)
                for function in source.generators:
                    if function not in self.scopes and (
                        scope := scope_of(source, function, resolve, is_maker)
                    ):
                        self.scopes[function] = scope

    def is_maker(self, source: Source, callee: ast.expr) -> bool:
        """Tell whether an expression is a sessionmaker of one of the files."""
        name = ast.unparse(callee)
        if name in source.makers:
            return True
        found = self._definition(source, source.origin(callee))
        return found is not None and found[1] in found[0].makers

    def openings(self, source: Source, function: Function) -> list[Opening]:
        """Return how a function comes by its sessions."""
        resolve = partial(self.scope, source)
        return openings_of(source, function, resolve, partial(self.is_maker, source))

    def may_commit_otherwise(self, scope: Scope) -> bool:
        """Tell whether somebody may commit a generator's session besides its user."""
        if any("AUTOCOMMIT" in source.text.upper() for source in self.sources):
            return True
        # Elsewhere it cannot be had, but from a registry, or by being handed on.
        return (
            not all(opening.certain for opening in scope.openings)
            or any("scoped_session" in source.text for source in self.sources)
            or not _keeps_to_itself(scope)
            or any(
                other.commits
                and any(
                    dependency.scope is scope
                    for _, dependency in self.sessions_of(other.source, other.function)
                )
                for other in self.scopes.values()
            )
        )

    def scope(self, source: Source, callee: ast.expr) -> Scope | None:
        found = self.resolve(source, callee)
        return found[0] if found else None

    def resolve(self, source: Source, callee: ast.expr) -> tuple[Scope, bool] | None:
        """Return the generator an expression names, and if as a context manager."""
        if isinstance(callee, ast.Name):
            for function in source.functions_around(callee):
                if callee.id in self._bindings(function) or callee.id in {
                    parameter.arg for parameter in parameters(function)
                }:
                    return self._named(source, function, callee.id)
            if callee.id not in source.imported:
                return self._named(source, source.tree, callee.id)
        found = self._definition(source, source.origin(callee))
        return self._named(found[0], found[0].tree, found[1]) if found else None

    def _named(
        self, source: Source, owner: ast.Module | Function, name: str
    ) -> tuple[Scope, bool] | None:
        match self._bindings(owner).get(name):
            case [ast.FunctionDef() | ast.AsyncFunctionDef() as function]:
                scope = self.scopes.get(function)
                return (scope, scope.managed) if scope else None
            case [ast.Assign([ast.Name()], ast.Call(callee, [inner]))] if (
                source.origin(callee).rpartition(".")[2] in CONTEXT_MANAGERS
            ):
                found = self.resolve(source, inner)
                return (found[0], True) if found else None
        return None

    def _bindings(self, owner: ast.Module | Function) -> dict[str, list[ast.stmt]]:
        """Return the statements of a file or function that bind each name."""
        if owner not in self._bound:
            found = self._bound[owner] = defaultdict(list)
            for node in _binding(owner):
                for name in _names_of(node):
                    found[name].append(node)
        return self._bound[owner]

    def _definition(self, source: Source, origin: str) -> tuple[Source, str] | None:
        """Return the file a dotted name is from, and its name there."""
        for _ in range(_HOPS):
            module, _, name = origin.rpartition(".")
            found = self._module(source, module)
            if found is None:
                return None
            if name not in found.imported:
                return found, name
            source, origin = found, found.imported[name]
        return None

    def _module(self, source: Source, module: str) -> Source | None:
        levels = len(module) - len(module.lstrip("."))
        if levels:
            above = source.path.resolve().parts[:-levels]
            module = ".".join([*above, *module[levels:].split(".")]).rstrip(".")
        found = self._modules.get(module, []) if module else []
        return found[0] if len(found) == 1 else None

    @cached_property
    def dependencies(self) -> dict[ast.AST, Dependency]:
        """Each call of Depends() with a generator of the project."""
        return {node.call: node for node in self._find_dependencies()}

    def _find_dependencies(self) -> Iterator[Dependency]:
        for source in self.sources:
            for node in source.nodes:
                if isinstance(node, ast.Call) and source.is_of_fastapi(
                    node.func, "Depends", "Security"
                ):
                    keywords = {word.arg: word.value for word in node.keywords}
                    named = [
                        *node.args[:1],
                        *filter(None, [keywords.get("dependency")]),
                    ]
                    if named and (found := self.resolve(source, named[0])):
                        yield Dependency(source, node, *found)

    @cached_property
    def depended_on(self) -> set[Scope]:
        return {dependency.scope for dependency in self.dependencies.values()}

    def sessions_of(
        self, source: Source, function: Function
    ) -> Iterator[tuple[str, Dependency]]:
        """Iterate over the parameters that are a session of a generator's."""
        if not self.dependencies:
            return
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        defaults: dict[ast.arg, ast.expr | None] = dict(
            zip(reversed(positional), reversed(arguments.defaults), strict=False)
        )
        defaults |= zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        for parameter in parameters(function):
            for place in (defaults.get(parameter), parameter.annotation):
                if found := self._dependency(source, place):
                    yield parameter.arg, found

    def _dependency(self, source: Source, node: ast.expr | None) -> Dependency | None:
        if node is None:
            return None
        if node in self.dependencies:
            return self.dependencies[node]
        if isinstance(node, ast.Subscript):
            return next(
                (
                    self.dependencies[part]
                    for part in ast.walk(node.slice)
                    if part in self.dependencies
                ),
                None,
            )
        return self._alias(source, node)

    def _alias(self, source: Source, node: ast.expr) -> Dependency | None:
        """Return what a name for Annotated[Session, Depends(...)] stands for."""
        name = ast.unparse(node)
        if name in source.imported:
            found = self._definition(source, source.imported[name])
            if found is None:
                return None
            source, name = found
        match self._bindings(source.tree).get(name):
            case [
                ast.Assign(value=ast.Subscript() as value)
                | ast.AnnAssign(value=ast.Subscript() as value)
            ]:
                return self._dependency(source, value)
        return None


def _binding(owner: ast.Module | Function) -> Iterator[ast.stmt]:
    """Iterate over the statements of a file or function that bind names."""
    waiting: list[ast.AST] = [*owner.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt) and _names_of(node):
            yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def _names_of(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            return {name}
        case ast.Assign(targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(ast.Name(name), value=value) if value is not None:
            return {name}
    return set()


def _keeps_to_itself(scope: Scope) -> bool:
    """Tell whether a generator does no more with its session than yield and end it."""
    for node in within(scope.function):
        if isinstance(node, ast.Name) and node.id in scope.names:
            if isinstance(node.ctx, ast.Store):
                continue
            parent = scope.source.parents[node]
            calling = scope.source.parents[parent]
            if parent in scope.yields or method_called(calling, scope.names) in _OWN:
                continue
            return False
    return all(isinstance(one, ast.Yield) for one in scope.yields)
