"""What names stand for, across the files given."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

from ._flow import Function
from ._source import Source, parameters

# How many times a name may be imported on before it is given up.
_HOPS = 8


class Names:
    """The files given, and the statements that bind names in them."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = [*sources]
        self._modules: dict[str, list[Source]] = defaultdict(list)
        for source in self.sources:
            parts = source.path.resolve().with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            for start in range(len(parts)):
                self._modules[".".join(parts[start:])].append(source)
        self._bound: dict[ast.AST, dict[str, list[ast.stmt]]] = {}

    def binding(
        self, source: Source, node: ast.expr
    ) -> tuple[Source, ast.stmt] | tuple[None, None]:
        """Return the only statement that binds a name, and the file that it is in."""
        if isinstance(node, ast.Name):
            for function in source.functions_around(node):
                if node.id in self._bindings(function) or node.id in {
                    parameter.arg for parameter in parameters(function)
                }:
                    return self._only(source, function, node.id)
            if node.id not in source.imported:
                return self._only(source, source.tree, node.id)
        found = self.definition(source, source.origin(node))
        return self._only(found[0], found[0].tree, found[1]) if found else (None, None)

    def function(
        self, source: Source, callee: ast.expr
    ) -> tuple[Source, Function] | None:
        """Return the function that an expression names, if it is as it is written."""
        match self.binding(source, callee):
            case Source() as found, ast.FunctionDef(
                decorator_list=[]
            ) | ast.AsyncFunctionDef(decorator_list=[]) as function:
                return found, function
        return None

    def _only(
        self, source: Source, owner: ast.Module | Function, name: str
    ) -> tuple[Source, ast.stmt] | tuple[None, None]:
        match self._bindings(owner).get(name):
            case [statement]:
                return source, statement
        return None, None

    def _bindings(self, owner: ast.Module | Function) -> dict[str, list[ast.stmt]]:
        """Return the statements of a file or function that bind each name."""
        if owner not in self._bound:
            found = self._bound[owner] = defaultdict(list)
            for node in _binding(owner):
                for name in _names_of(node):
                    found[name].append(node)
        return self._bound[owner]

    def definition(self, source: Source, origin: str) -> tuple[Source, str] | None:
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
