"""A source file: its tree, and what the names in it stand for."""

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ._flow import Function, Parents, Yield, outwards, parents_of, within
from ._rule import Finding

_SESSION_CLASSES = {"Session", "AsyncSession"}
_MAKERS = {"sessionmaker", "async_sessionmaker"}
_FROM = {"sqlalchemy", "sqlmodel"}
_OURS = {"safesession.session_scope", "safesession.async_session_scope"}
_OUR_DEPENDENCIES = {
    "safesession.fastapi.session_dependency",
    "safesession.fastapi.async_session_dependency",
}
_ROUTES = {
    "api_route",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "route",
    "trace",
}
_FASTAPI = {"fastapi", "fastapi.params", "fastapi.param_functions"}


class Unreadable(Exception):
    """A file cannot be read as Python; the message says where and why."""


@dataclass(eq=False)
class Source:
    """A file that was read and parsed."""

    path: Path
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> "Source":
        """Read and parse a file, without running any of it."""
        try:
            data = path.read_bytes()
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = io.TextIOWrapper(io.BytesIO(data), encoding).read()
            with warnings.catch_warnings():
                # Of the code that is read, such as an invalid escape.
                warnings.simplefilter("ignore")
                tree = ast.parse(data)
        except SyntaxError as error:
            place = f"{path}:{error.lineno or 1}:{error.offset or 1}"
            raise Unreadable(f"{place}: {error.msg}") from error
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Unreadable(f"{path}: {reason or type(error).__name__}") from error
        return cls(path, text, tree)

    @cached_property
    def parents(self) -> Parents:
        return parents_of(self.tree)

    @cached_property
    def lines(self) -> list[str]:
        """The lines as Python counts them: no form feed begins one."""
        return re.split(r"\r\n|\r|\n", self.text)

    def column(self, line: int, offset: int) -> int:
        """Return the column, from 1 on, of an offset in bytes of UTF-8."""
        return len(self.lines[line - 1].encode()[:offset].decode()) + 1

    def finding(
        self, node: ast.AST, code: str, message: str, replacement: str
    ) -> Finding:
        """Return a finding at a node of this file."""
        place: Any = node
        end: Any = node
        if isinstance(node, ast.ExceptHandler):
            # Its first line, and not the block.
            end = node.type
        column = self.column(place.lineno, place.col_offset)
        return Finding(
            self.path.as_posix(),
            place.lineno,
            column,
            end.end_lineno if end else place.lineno,
            self.column(end.end_lineno, end.end_col_offset) if end else column,
            code,
            message,
            replacement,
        )

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return [*ast.walk(self.tree)]

    @cached_property
    def functions(self) -> list[Function]:
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def generators(self) -> list[Function]:
        return [
            function
            for function in self.functions
            if any(isinstance(node, Yield) for node in within(function))
        ]

    @cached_property
    def imported(self) -> dict[str, str]:
        """What each imported name stands for, with the dots of a relative import."""
        found: dict[str, str] = {}
        for node in self.nodes:
            found |= imports_of(node)
        return found

    def origin(self, node: ast.AST | None) -> str:
        """Return the dotted name that an expression stands for, or an empty one."""
        match node:
            case ast.Name(name):
                return self.imported.get(name, name)
            case ast.Attribute(value, name):
                before = self.origin(value)
                return f"{before}.{name}" if before else ""
            case ast.Subscript(value):
                return self.origin(value)
        return ""

    def is_of_fastapi(self, node: ast.AST, *names: str) -> bool:
        module, _, name = self.origin(node).rpartition(".")
        return module in _FASTAPI and name in names

    def is_of_sqlalchemy(self, node: ast.AST | None, *names: str) -> bool:
        module, _, name = self.origin(node).rpartition(".")
        return module.partition(".")[0] in _FROM and name in names

    def is_session_class(self, node: ast.AST | None) -> bool:
        return self.is_of_sqlalchemy(node, *_SESSION_CLASSES)

    def is_maker_call(self, node: ast.AST | None) -> bool:
        """Tell whether an expression makes a sessionmaker."""
        return isinstance(node, ast.Call) and self.is_of_sqlalchemy(node.func, *_MAKERS)

    def sqlmodel_class(self, node: ast.expr) -> ast.expr | None:
        """Return a session class of SQLModel's, which has a method of its own."""
        of_sqlmodel = self.origin(node).startswith("sqlmodel.")
        return node if of_sqlmodel and self.is_session_class(node) else None

    def is_our_scope(self, node: ast.AST) -> bool:
        return self.origin(node) in _OURS

    def is_our_dependency(self, node: ast.AST) -> bool:
        return self.origin(node) in _OUR_DEPENDENCIES

    def mentions_session_class(self, annotation: ast.AST | None) -> bool:
        """Tell whether an annotation names a session class, in whatever it is in."""
        if annotation is None:
            return False
        for node in ast.walk(annotation):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                try:
                    inner = ast.parse(node.value, mode="eval")
                except (SyntaxError, ValueError):
                    continue
                if any(map(self.is_session_class, ast.walk(inner))):
                    return True
            if self.is_session_class(node):
                return True
        return False

    @cached_property
    def makers(self) -> set[str]:
        """The names, and attributes of self, that are assigned a sessionmaker."""
        assigned = (
            (node.targets if isinstance(node, ast.Assign) else [node.target], node)
            for node in self.nodes
            if isinstance(node, ast.Assign | ast.AnnAssign)
        )
        return {
            ast.unparse(target)
            for targets, node in assigned
            if self.is_maker_call(node.value)
            for target in targets
        }

    def functions_around(self, node: ast.AST) -> list[Function]:
        return [n for n in outwards(node, self.parents) if isinstance(n, Function)]


def imports_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Iterate over the names that a statement imports, and what each stands for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            yield name, alias.name if alias.asname else name
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        dot = "" if module.endswith(".") else "."
        for alias in node.names:
            yield alias.asname or alias.name, f"{module}{dot}{alias.name}"


def parameters(function: Function) -> list[ast.arg]:
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs]


def is_endpoint(function: Function) -> bool:
    """Tell whether a function is an endpoint for HTTP, by its decorators alone."""
    return bool(function.decorator_list) and all(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _ROUTES
        for node in function.decorator_list
    )


def decorators(source: Source, function: Function) -> list[str]:
    """Return the dotted names of a function's decorators."""
    return [
        source.origin(node.func if isinstance(node, ast.Call) else node)
        for node in function.decorator_list
    ]
