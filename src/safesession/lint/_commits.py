"""The rules on where a session generator commits."""

import ast
from collections.abc import Iterable, Iterator

from ._flow import Yield, inside, run
from ._handlers import BROAD, caught_by, keeps
from ._rule import Finding
from ._scopes import Scope, replacement, types_of

# How bad it is, and what is told of it.
_What = tuple[int, str]


def committed_in_finally(scope: Scope, yields: Iterable[Yield]) -> Iterator[Finding]:
    """Find commits that are made whatever was raised."""
    worst: dict[ast.AST, _What] = {}
    for one in yields:
        for commit, what in _committed(scope, one):
            worst[commit] = max(what, worst.get(commit, what))
    for commit, (_, told) in worst.items():
        yield scope.source.finding(
            commit,
            "SAFE004",
            f"{scope.name}() commits in `finally`: what was written before an "
            f"exception{told}.",
            "commit behind the yield, inside `try`, where no exception comes by; or "
            f"{replacement(scope)}",
        )


def _committed(scope: Scope, one: Yield) -> Iterator[tuple[ast.AST, _What]]:
    """Iterate over the commits of one yield, each with what it keeps."""
    handlers: list[ast.ExceptHandler] = []
    for block, field in scope.around(one):
        if not isinstance(block, ast.Try) or field == "finalbody":
            continue
        if field == "body":
            handlers += block.handlers
            if _rolls_back_everything(scope, block):
                return
        reached, _ = run(block.finalbody)
        for statement in reached:
            if any(scope.calls(statement, "rollback")):
                break
            if commit := next(_own_calls(scope, statement, "commit"), None):
                yield commit, _which(scope, handlers)
                break


def _rolls_back_everything(scope: Scope, block: ast.Try) -> bool:
    return any(
        (not types_of(handler) or "BaseException" in types_of(handler))
        and any(scope.calls(handler, "rollback"))
        for handler in block.handlers
    )


def _which(scope: Scope, handlers: list[ast.ExceptHandler]) -> _What:
    """Tell after which exceptions it commits, and who hears of them."""
    told = " is committed, half done"
    handler = next(
        (h for h in handlers if not types_of(h) or types_of(h) & BROAD), None
    )
    if handler is None:
        return 1, told
    if any(scope.calls(handler, "rollback")):
        return 0, f" that is no Exception, such as a cancellation,{told}"
    if not keeps(scope, handler):
        return 1, told
    told += f"; {caught_by(handler)}"
    if scope.managed:
        told += ", and the caller takes it for all of it"
    return 2, told


def _own_calls(scope: Scope, statement: ast.stmt, method: str) -> Iterator[ast.AST]:
    """Iterate over calls that a statement is, as what it contains comes by itself."""
    if isinstance(statement, ast.Expr):
        yield from scope.calls(statement, method)


def committed_after_close(scope: Scope, one: Yield) -> Iterator[Finding]:
    """Find a commit of a session that has been closed, and has nothing to commit."""
    blocks = {block for block, _ in scope.around(one)}
    path, _ = scope.after(scope.statement(one))
    closed = False
    for statement in path:
        if statement in blocks:
            if scope.commits_when_left(statement):
                return
            closed = closed or bool(scope.opened_by(statement))
            continue
        commit = next(_own_calls(scope, statement, "commit"), None)
        if commit is not None and closed:
            yield scope.source.finding(
                commit,
                "SAFE006",
                f"{scope.name}() has closed its session before this commit: the close "
                "has rolled back all that was written, and an empty transaction is "
                "committed.",
                f"commit before the session is closed; or {replacement(scope)}",
            )
        if any(scope.calls(statement, "commit")) or (
            closed and _uses(scope, statement)
        ):
            return
        closed = closed or any(_own_calls(scope, statement, "close"))


def _uses(scope: Scope, statement: ast.stmt) -> bool:
    """Tell whether a session is used, and so opened again."""
    return any(
        isinstance(node, ast.Name) and node.id in scope.names
        for node in inside(statement)
    ) and not any(_own_calls(scope, statement, "close"))
