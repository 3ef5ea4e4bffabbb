"""Generators that yield a session, as far as they can be told with certainty."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from ._flow import (
    End,
    For,
    Function,
    Path,
    With,
    Yield,
    after,
    around,
    inside,
    statement_of,
    within,
)
from ._made import UNSEEN, is_begun, made_with, maker_of
from ._source import Source, decorators, parameters

CONTEXT_MANAGERS = {"contextmanager", "asynccontextmanager"}
_ENDING = {"commit", "rollback"}
ENDED_BY = {*_ENDING, "close"}


@dataclass(eq=False)
class Opening:
    """How a function comes by a session."""

    name: str
    node: ast.AST
    # Leaving the `with` block that it is opened in commits.
    commits: bool = False
    # What is called for it, which may be a generator of the project.
    callee: ast.expr | None = None
    # What it is made of is known, and is no scoped_session.
    certain: bool = True
    # It is one that nobody else has: of a sessionmaker, or of the class.
    is_fresh: bool = False
    # It is of a scope of this library.
    is_ours: bool = False
    # What to give our own calls in its place.
    arguments: str | None = None


@dataclass(eq=False)
class Scope:
    """A generator that yields a session, or something made with one."""

    source: Source
    function: Function
    openings: list[Opening]
    yields: list[Yield]
    managed: bool
    resolve: "Resolve"

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def is_async(self) -> bool:
        return isinstance(self.function, ast.AsyncFunctionDef)

    @cached_property
    def has_async_session(self) -> bool:
        """Tell whether its session is one to be awaited, as far as can be seen."""
        return self.is_async and not any(
            method_called(node, self.names) in ENDED_BY
            and not isinstance(self.source.parents[node], ast.Await)
            for node in within(self.function)
        )

    @cached_property
    def arguments(self) -> str:
        """What to give our own calls in its place."""
        # For one that calls itself, in the meantime.
        self.__dict__["arguments"] = UNSEEN
        for opening in self.openings:
            inner = self.resolve(opening.callee) if opening.callee else None
            if found := inner.arguments if inner else opening.arguments:
                return found
        return UNSEEN

    @cached_property
    def names(self) -> set[str]:
        return {opening.name for opening in self.openings}

    @cached_property
    def commits(self) -> bool:
        """Tell whether it commits by itself when the yield is come back to."""
        # For one that calls itself, in the meantime.
        self.__dict__["commits"] = False
        return any(map(self._commits_after, self.yields)) or any(
            inner.commits
            for opening in self.openings
            if opening.callee and (inner := self.resolve(opening.callee))
        )

    def _commits_after(self, one: Yield) -> bool:
        path, _ = self.after(self.statement(one))
        blocks = {block for block, _ in self.around(one)}
        return any(
            self.commits_when_left(statement)
            if statement in blocks
            else any(self.calls(statement, "commit"))
            for statement in path
        )

    def commits_when_left(self, block: ast.AST) -> bool:
        """Tell whether leaving a `with` block commits."""
        return isinstance(block, With) and (
            any(opening.commits for opening in self.opened_by(block))
            or any(
                method_called(item.context_expr, self.names) == "begin"
                for item in block.items
            )
        )

    def opened_by(self, block: ast.AST) -> list[Opening]:
        return [opening for opening in self.openings if opening.node is block]

    def statement(self, node: ast.AST) -> ast.stmt:
        return statement_of(node, self.source.parents)

    def around(self, node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
        return around(node, self.source.parents)

    def after(self, node: ast.AST, end: End = End.FALLS) -> Path:
        return after(node, self.source.parents, end)

    def calls(self, node: ast.AST, *methods: str) -> Iterator[ast.AST]:
        """Iterate over the calls of these methods of its session."""
        for call in inside(node):
            if method_called(call, self.names) in methods:
                yield call


Resolve = Callable[[ast.expr], Scope | None]
IsMaker = Callable[[ast.expr], bool]


def method_called(node: ast.AST, names: set[str]) -> str | None:
    """Return which method of one of these names a node calls."""
    match node:
        case ast.Call(ast.Attribute(ast.Name(name), method)) if name in names:
            return method
    return None


def types_of(handler: ast.ExceptHandler) -> set[str]:
    """Return the last names of what is caught; none where it is everything."""
    caught = handler.type
    parts = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return {ast.unparse(part).rpartition(".")[2] for part in parts if part}


def scope_of(
    source: Source, function: Function, resolve: Resolve, is_maker: IsMaker
) -> Scope | None:
    """Return what a function is as a generator of sessions, if it is one."""
    yields = [node for node in within(function) if isinstance(node, Yield)]
    names = [name.rpartition(".")[2] for name in decorators(source, function)]
    # pytest throws nothing into a fixture.
    if not yields or any("fixture" in name for name in names):
        return None
    openings = openings_of(source, function, resolve, is_maker)
    known = {opening.name for opening in openings}
    handed = [one for one in yields if _mentions(one.value, known)]
    for one in yields:
        match one:
            case ast.YieldFrom(ast.Call(callee)) if resolve(callee):
                openings.append(Opening("", one, callee=callee))
                handed.append(one)
    managed = any(name in CONTEXT_MANAGERS for name in names)
    if not handed:
        return None
    return Scope(source, function, openings, handed, managed, resolve)


def openings_of(
    source: Source, function: Function, resolve: Resolve, is_maker: IsMaker
) -> list[Opening]:
    """Return how a function comes by its sessions, its parameters among them."""
    found = [
        Opening(parameter.arg, parameter)
        for parameter in parameters(function)
        if source.mentions_session_class(parameter.annotation)
    ]
    bound = [*_bound(function)]
    ended = {
        name
        for node in within(function)
        for name, *_ in bound
        if method_called(node, {name}) in _ENDING
    }
    for name, call, annotation, node in bound:
        opening = Opening(name, node, callee=call.func)
        opening.arguments = made_with(source, function, call, is_maker)
        begun = is_begun(call)
        maker = maker_of(call)
        if source.is_our_scope(call.func):
            opening.commits = opening.is_ours = True
        elif source.is_maker_call(maker) or is_maker(maker):
            opening.commits = begun
            opening.is_fresh = True
        elif isinstance(node, With | For) and resolve(call.func):
            pass
        elif source.is_session_class(call.func) or source.is_session_class(annotation):
            opening.certain = opening.is_fresh = source.is_session_class(call.func)
        elif name in ended and "session" in ast.unparse(call.func).lower():
            opening.certain = False
        else:
            continue
        found.append(opening)
    return found


def _bound(
    function: Function,
) -> Iterator[tuple[str, ast.Call, ast.expr | None, ast.AST]]:
    """Iterate over names, the call each is bound to, its annotation, and where."""
    for node in within(function):
        match node:
            case ast.Assign([ast.Name(name)], ast.Call() as call):
                yield name, call, None, node
            case ast.AnnAssign(ast.Name(name), annotation, ast.Call() as call):
                yield name, call, annotation, node
            case ast.For(ast.Name(name), ast.Call() as call) | ast.AsyncFor(
                ast.Name(name), ast.Call() as call
            ):
                yield name, call, None, node
            case ast.Return(ast.Call() as call):
                yield "", call, None, node
            case ast.With(items) | ast.AsyncWith(items):
                for item in items:
                    match item:
                        case ast.withitem(ast.Call() as call, ast.Name(name)):
                            yield name, call, None, node


def _mentions(node: ast.AST | None, names: set[str]) -> bool:
    return node is not None and any(
        isinstance(part, ast.Name) and part.id in names for part in inside(node)
    )


def replacement(scope: Scope) -> str:
    """Return what to write in place of a hand-written generator."""
    if scope.managed:
        prefix = "async_" if scope.has_async_session else ""
        return f"use safesession.{prefix}session_scope({scope.arguments})"
    return f"use {dependency_in_place(scope.has_async_session, scope.arguments)}"


def dependency_in_place(is_async: bool, arguments: str) -> str:
    """Return our own dependency, with its arguments."""
    prefix = "async_" if is_async else ""
    return f"safesession.fastapi.{prefix}session_dependency({arguments})"


def scope_in_place(is_async: bool, arguments: str) -> str:
    """Return what to write where a session is needed, and is not the request's."""
    if is_async:
        return f"`async with safesession.async_session_scope({arguments}) as session:`"
    return f"`with safesession.session_scope({arguments}) as session:`"
