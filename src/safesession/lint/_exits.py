"""The rules on how a session generator ends."""

import ast
from collections.abc import Iterator

from ._commits import committed_after_close, committed_in_finally
from ._flow import End, With, Yield, run
from ._handlers import BROAD, caught_by, keeps
from ._project import Project
from ._rule import Finding
from ._scopes import Scope, replacement, types_of

_NO_EXCEPTIONS = {"GeneratorExit", "StopIteration", "StopAsyncIteration"}
_OF_DATABASES = {
    "DataError",
    "DatabaseError",
    "DBAPIError",
    "IntegrityError",
    "InterfaceError",
    "OperationalError",
    "PendingRollbackError",
    "ProgrammingError",
    "SQLAlchemyError",
}


def check_exits(project: Project) -> Iterator[Finding]:
    """Find what is wrong with the ends of the project's session generators."""
    for scope in project.scopes.values():
        yields = [
            one for one in scope.yields if not _is_one_of_many(project, scope, one)
        ]
        yield from committed_in_finally(scope, yields)
        for one in yields:
            yield from _caught(scope, one)
            yield from _left_in_finally(scope, one)
            yield from committed_after_close(scope, one)
            if not scope.managed and _is_for_fastapi(project, scope):
                yield from _replaced(scope, one)


def _is_one_of_many(project: Project, scope: Scope, one: Yield) -> bool:
    """Tell whether the generator may be iterated over: then nothing is thrown in."""
    if scope.managed or scope in project.depended_on:
        return False
    blocks = [block for block, _ in scope.around(one)]
    taken = {opening.node for opening in scope.openings}
    return any(
        isinstance(block, ast.For | ast.AsyncFor | ast.While) and block not in taken
        for block in blocks
    )


def _is_for_fastapi(project: Project, scope: Scope) -> bool:
    return scope in project.depended_on or any(
        name.partition(".")[0] == "fastapi" for name in scope.source.imported.values()
    )


def _handlers(scope: Scope, one: Yield) -> Iterator[tuple[ast.Try, ast.ExceptHandler]]:
    """Iterate over the handlers that see what is thrown into a yield."""
    for block, field in scope.around(one):
        if isinstance(block, ast.Try) and field == "body":
            for handler in block.handlers:
                if not types_of(handler) or not types_of(handler) <= _NO_EXCEPTIONS:
                    yield block, handler


def _finals(scope: Scope, one: Yield) -> Iterator[list[ast.stmt]]:
    for block, field in scope.around(one):
        if isinstance(block, ast.Try) and field != "finalbody":
            yield block.finalbody


def _caught(scope: Scope, one: Yield) -> Iterator[Finding]:
    """SAFE001 and SAFE002."""
    for _, handler in _handlers(scope, one):
        reached, end = run(handler.body)
        if end in (End.RAISES, End.UNSURE):
            later: list[ast.stmt] = []
        else:
            later, _ = scope.after(handler, end)
        again = next((y for s in [*reached, *later] if (y := _yield_of(s))), None)
        if again is not None:
            yield _second_yield(scope, again)
        elif keeps(scope, handler):
            yield _swallowed(scope, handler, caught_by(handler))
    for final in _finals(scope, one):
        for statement in run(final)[0]:
            if again := _yield_of(statement):
                yield _second_yield(scope, again)
    blocks = [block for block, _ in scope.around(one) if isinstance(block, With)]
    for block in blocks:
        for item in block.items:
            match item.context_expr:
                case ast.Call(callee, [_, *_] as caught) as call if (
                    scope.source.origin(callee) == "contextlib.suppress"
                ):
                    kept = ", ".join(map(ast.unparse, caught))
                    yield _swallowed(
                        scope,
                        call,
                        f"`suppress({kept})` keeps",
                        "put the suppress() where no yield is in it",
                    )


def _yield_of(statement: ast.stmt) -> Yield | None:
    match statement:
        case ast.Expr((ast.Yield() | ast.YieldFrom()) as found):
            return found
    return None


def _second_yield(scope: Scope, again: Yield) -> Finding:
    return scope.source.finding(
        again,
        "SAFE001",
        f"This yield of {scope.name}() is reached when an exception was thrown into an "
        'earlier one: Python raises "generator didn\'t stop after throw()" in its '
        "place, and nothing after this line runs.",
        f"roll back and raise; or {replacement(scope)}",
    )


def _swallowed(
    scope: Scope, node: ast.AST, how: str, cure: str = "end it with `raise`"
) -> Finding:
    what = (
        "the `with` block of the caller ends as if nothing had been raised"
        if scope.managed
        else "FastAPI has neither an answer nor an exception, and the client has a 500 "
        "in place of what the endpoint raised"
    )
    return scope.source.finding(
        node,
        "SAFE002",
        f"{how} what was thrown into the yield of {scope.name}(): {what}.",
        f"{cure}; or {replacement(scope)}",
    )


def _left_in_finally(scope: Scope, one: Yield) -> Iterator[Finding]:
    for final in _finals(scope, one):
        reached, end = run(final)
        if end in (End.RETURNS, End.BREAKS, End.CONTINUES):
            leaving = next(
                statement
                for statement in reached
                if isinstance(statement, ast.Return | ast.Break | ast.Continue)
            )
            word = type(leaving).__name__.lower()
            yield scope.source.finding(
                leaving,
                "SAFE003",
                f"`{word}` in a `finally` of {scope.name}() drops whatever was raised, "
                "a cancellation and a failed commit too: nobody hears of it.",
                f"let `finally` end by itself; or {replacement(scope)}",
            )


def _replaced(scope: Scope, one: Yield) -> Iterator[Finding]:
    for block, handler in _handlers(scope, one):
        if types_of(handler) and not types_of(handler) & BROAD:
            continue
        before = block.handlers[: block.handlers.index(handler)]
        if not set[str]().union(*map(types_of, before)) <= _OF_DATABASES:
            continue
        reached, end = run(handler.body)
        match reached[-1]:
            case ast.Raise(ast.Call(raised) | (ast.Name() as raised)) if (
                end is End.RAISES and _is_class(raised)
            ):
                yield scope.source.finding(
                    reached[-1],
                    "SAFE012",
                    f"{scope.name}() raises {ast.unparse(raised)} in place of whatever "
                    "it catches: the 404 that an endpoint raises, or the 422 of a "
                    "validation error, is answered as this one.",
                    f"raise the exception itself, by `raise`; or {replacement(scope)}",
                )


def _is_class(node: ast.expr) -> bool:
    """Tell by its name that it is no exception which was caught."""
    return ast.unparse(node).rpartition(".")[2][:1].isupper()
