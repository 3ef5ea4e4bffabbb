"""What names stand for, across the files given."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

from ._flow import NAMESPACES, Function, Parents, outwards
from ._source import Source, imports_of

# How many times a name may be imported on before it is given up.
_HOPS = 8
Owner = ast.Module | ast.ClassDef | ast.Lambda | Function


class Names:
    """The files given, and what binds names in them."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = [*sources]
        self._modules: dict[str, list[Source]] = defaultdict(list)
        for source in self.sources:
            parts = source.path.resolve().with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            for start in range(len(parts)):
                self._modules[".".join(parts[start:])].append(source)
        self._bound: dict[Owner, dict[str, list[ast.AST | str]]] = {}

    def binding(
        self, source: Source, node: ast.expr
    ) -> tuple[Source, ast.stmt] | tuple[None, None]:
        """Return the only statement that binds a name, and the file that it is in."""
        path: list[str] = []
        root = node
        while isinstance(root, ast.Attribute):
            path.insert(0, root.attr)
            root = root.value
        if not isinstance(root, ast.Name):
            return None, None
        found = self._only(source, self._owner(source, root), root.id)
        if isinstance(found, str):
            defined = self.definition(source, ".".join([found, *path]))
            if defined is None:
                return None, None
            source, name = defined
            found = self._only(source, source.tree, name)
        elif path:
            # An attribute of what is no module.
            return None, None
        return (source, found) if isinstance(found, ast.stmt) else (None, None)

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

    def _owner(self, source: Source, name: ast.Name) -> Owner:
        """Return the function, class or file whose name it is."""
        innermost = True
        for place in outwards(name, source.parents):
            if isinstance(place, NAMESPACES):
                # What is in a class is not seen by its methods.
                seen = innermost or not isinstance(place, ast.ClassDef)
                if seen and name.id in self._bindings(source, place):
                    return place
                innermost = False
        return source.tree

    def _only(self, source: Source, owner: Owner, name: str) -> ast.AST | str | None:
        """Return what binds a name, if it is bound once."""
        match self._bindings(source, owner).get(name):
            case [binding]:
                return binding
        return None

    def _bindings(self, source: Source, owner: Owner) -> dict[str, list[ast.AST | str]]:
        """Return what binds each name: a node, or what is imported by the name."""
        if owner not in self._bound:
            found = self._bound[owner] = defaultdict(list)
            for name, binding in _binding(owner, source.parents):
                if binding not in found[name]:
                    found[name].append(binding)
        return self._bound[owner]

    def definition(self, source: Source, origin: str) -> tuple[Source, str] | None:
        """Return the file a dotted name is from, and its name there."""
        for _ in range(_HOPS):
            module, _, name = origin.rpartition(".")
            found = self._module(source, module)
            if found is None:
                return None
            match self._only(found, found.tree, name):
                case str(origin):
                    source = found
                case _:
                    return found, name
        return None

    def _module(self, source: Source, module: str) -> Source | None:
        levels = len(module) - len(module.lstrip("."))
        if levels:
            above = source.path.resolve().parts[:-levels]
            module = ".".join([*above, *module[levels:].split(".")]).rstrip(".")
        found = self._modules.get(module, []) if module else []
        return found[0] if len(found) == 1 else None


def _binding(owner: Owner, parents: Parents) -> Iterator[tuple[str, ast.AST | str]]:
    """Iterate over the names of a function, class or file, and what binds each."""
    waiting: list[ast.AST] = []
    if isinstance(owner, Function | ast.Lambda):
        waiting.append(owner.args)
    waiting += [owner.body] if isinstance(owner, ast.Lambda) else owner.body
    while waiting:
        node = waiting.pop()
        yield from _bound_by(node, parents)
        if not isinstance(node, NAMESPACES):
            waiting.extend(ast.iter_child_nodes(node))
    # It may be bound from elsewhere then, or elsewhere from here.
    for node in ast.walk(owner):
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from ((name, node) for name in node.names)


def _bound_by(node: ast.AST, parents: Parents) -> Iterator[tuple[str, ast.AST | str]]:
    match node:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name, node
        case ast.Import() | ast.ImportFrom():
            yield from imports_of(node)
        case ast.Name(name, ast.Store() | ast.Del()):
            match parents[node]:
                case ast.AnnAssign(value=None):
                    pass
                case ast.Assign() | ast.AnnAssign() as statement:
                    yield name, statement
                case _:
                    yield name, node
        case (
            ast.arg(str(name))
            | ast.ExceptHandler(name=str(name))
            | ast.MatchAs(name=str(name))
            | ast.MatchStar(str(name))
            | ast.MatchMapping(rest=str(name))
        ):
            yield name, node
