"""The files given: the generators, dependencies and sessions in them."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from ._flow import Function
from ._names import Names
from ._provided import Ours, Returned, ours_of, returned_of
from ._scopes import CONTEXT_MANAGERS, Opening, Scope, openings_of, scope_of
from ._source import Source, parameters


@dataclass(frozen=True)
class Dependency:
    """A call of Depends(), and what it names, if that gives a session."""

    source: Source
    call: ast.Call
    provider: Scope | Ours | Returned | None
    # It names a context manager that was made of the generator.
    managed: bool = False

    @property
    def scope(self) -> object:
        """What it says of when the dependency ends; an expression, if it is no name."""
        for word in self.call.keywords:
            if word.arg == "scope":
                value = word.value
                return value.value if isinstance(value, ast.Constant) else value
        return None


class Project(Names):
    """All that is checked at once."""

    def __init__(self, sources: Iterable[Source]) -> None:
        super().__init__(sources)
        self.scopes: dict[Function, Scope] = {}
        self._provided: dict[tuple[Source, ast.AST], Ours | Returned | None] = {}
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
        found = self.definition(source, source.origin(callee))
        return found is not None and found[1] in found[0].makers

    def openings(self, source: Source, function: Function) -> list[Opening]:
        """Return how a function comes by its sessions."""
        resolve = partial(self.scope, source)
        return openings_of(source, function, resolve, partial(self.is_maker, source))

    def mentions(self, *words: str) -> bool:
        """Tell whether a word is in any of the files, by either case."""
        return any(
            word in source.text.lower() for word in words for source in self.sources
        )

    def scope(self, source: Source, callee: ast.expr) -> Scope | None:
        found = self.resolve(source, callee)
        return found[0] if found else None

    def resolve(self, source: Source, callee: ast.expr) -> tuple[Scope, bool] | None:
        """Return the generator an expression names, and if as a context manager."""
        match self.binding(source, callee):
            case _, ast.FunctionDef() | ast.AsyncFunctionDef() as function:
                scope = self.scopes.get(function)
                return (scope, scope.managed) if scope else None
            case Source() as where, ast.Assign(
                [ast.Name()], ast.Call(maker, [inner])
            ) if where.origin(maker).rpartition(".")[2] in CONTEXT_MANAGERS:
                found = self.resolve(where, inner)
                return (found[0], True) if found else None
        return None

    def provider(self, source: Source, callee: ast.expr) -> Ours | Returned | None:
        """Return what gives a session to who depends on it, and is no generator."""
        place: tuple[Source, ast.AST] = source, callee
        match self.binding(source, callee):
            case Source() as where, (
                ast.Assign(value=ast.Call() as value)
                | ast.AnnAssign(value=ast.Call() as value)
            ):
                place = where, value
            case Source() as where, (
                ast.FunctionDef(decorator_list=[])
                | ast.AsyncFunctionDef(decorator_list=[])
            ) as function:
                place = where, function
        if place not in self._provided:
            self._provided[place] = self._provided_by(*place)
        return self._provided[place]

    def _provided_by(self, source: Source, node: ast.AST) -> Ours | Returned | None:
        if isinstance(node, Function):
            return returned_of(source, node, self.openings(source, node))
        return ours_of(source, node)

    @cached_property
    def dependencies(self) -> dict[ast.AST, Dependency]:
        """Each call of Depends(), and what it names of the project's."""
        return {node.call: node for node in self._find_dependencies()}

    def _find_dependencies(self) -> Iterator[Dependency]:
        for source in self.sources:
            for node in source.nodes:
                if isinstance(node, ast.Call) and source.is_of_fastapi(
                    node.func, "Depends", "Security"
                ):
                    keywords = {word.arg: word.value for word in node.keywords}
                    named = next(iter(node.args), keywords.get("dependency"))
                    if named and (found := self.resolve(source, named)):
                        yield Dependency(source, node, *found)
                    else:
                        provider = self.provider(source, named) if named else None
                        yield Dependency(source, node, provider)

    @cached_property
    def depended_on(self) -> set[object]:
        return {dependency.provider for dependency in self.dependencies.values()}

    def sessions_of(
        self, source: Source, function: Function
    ) -> Iterator[tuple[str, Dependency]]:
        """Iterate over the parameters that are a session."""
        for name, dependency in self.depends(source, function):
            if dependency.provider is not None:
                yield name, dependency

    @cached_property
    def _given(self) -> dict[object, list[tuple[Source, Function, str]]]:
        found: dict[object, list[tuple[Source, Function, str]]] = defaultdict(list)
        for source in self.sources:
            for function in source.functions:
                for name, dependency in self.sessions_of(source, function):
                    found[dependency.provider].append((source, function, name))
        return found

    def given_to(self, provider: object) -> list[tuple[Source, Function, str]]:
        """Return the functions, and their parameters, that are given a session."""
        return self._given[provider]

    def depends(
        self, source: Source, function: Function
    ) -> Iterator[tuple[str, Dependency]]:
        """Iterate over the parameters that a function has by Depends()."""
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
        """Return the Depends() that is a node, or in it, or that it is a name for."""
        if node is None or node in self.dependencies:
            return self.dependencies.get(node) if node else None
        if isinstance(node, ast.Subscript):
            parts = ast.walk(node.slice)
            return next(filter(None, map(self.dependencies.get, parts)), None)
        match self.binding(source, node):
            case Source() as where, (
                ast.Assign(value=ast.Subscript() as value)
                | ast.AnnAssign(value=ast.Subscript() as value)
            ):
                return self._dependency(where, value)
        return None
