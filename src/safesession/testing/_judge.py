"""Which promises a unit of work has shown to be broken, and by what."""

import operator
from collections.abc import Iterator

from sqlalchemy.exc import IntegrityError

from ._cases import Case, adding, clashing_at_commit, poisoning
from ._seen import Finding, Seen, in_place, named

# The number of a promise, and what was seen.
Broken = tuple[int, str]


def judge(case: Case, seen: Seen, commits: bool) -> Iterator[Finding]:
    """Yield what shows that a promise is broken."""
    for look in (_what_leaves, _what_is_kept, _what_is_left_behind):
        for promise, found in look(case, seen):
            yield Finding(promise, case.example(commits), found)


def _what_leaves(case: Case, seen: Seen) -> Iterator[Broken]:
    interrupted = seen.failure is not None and not isinstance(seen.failure, Exception)
    if interrupted:
        if seen.left is not seen.failure:
            name = type(seen.failure).__name__
            yield 5, f"{name} came during the exit, and {in_place(seen.left)}"
        elif seen.error is not None and not _tells_of(seen.left, seen.error):
            name = type(seen.failure).__name__
            told = "the exception of the block is not in its __context__"
            yield 5, f"{name} came during the exit and was raised, but {told}"
    elif seen.answered and case.call in (None, "commit"):
        # The client was told, by an exception handler or a middleware of the app.
        return
    elif case.call == "commit":
        orig = getattr(seen.left, "orig", None)
        if seen.left is not seen.failure and orig is not seen.failure:
            yield 4, f"the commit failed, and {in_place(seen.left)}"
    elif case.body is clashing_at_commit:
        if not isinstance(seen.left, IntegrityError):
            yield 4, f"the commit failed, and {in_place(seen.left)}"
    elif case.body is poisoning:
        if seen.left is None:
            yield 6, "nothing was written, and no exception reached the caller"
    elif seen.left is not seen.error:
        block = "ended normally" if seen.error is None else "raised an exception"
        if seen.failure is not None:
            block += f" and the {case.call} failed"
        left = in_place(seen.left)
        if seen.error is None and seen.left is not None:
            left = f"this reached the caller: {named(seen.left)}"
        yield (1 if seen.failure is None else 5), f"the block {block}, and {left}"
    elif not all(map(operator.is_, seen.links_left, seen.links)):
        yield 1, "the exception has another __cause__ or __context__ than in the block"


def _what_is_kept(case: Case, seen: Seen) -> Iterator[Broken]:
    commits = case.body is adding and case.call != "commit"
    if seen.rows == frozenset({"row-1"} if commits else ()):
        return
    if seen.rows:
        yield 2, f"the work failed, and this is committed: {_rows(seen.rows)}"
    else:
        yield 2, "the block ended normally, and its row is not committed"


def _what_is_left_behind(case: Case, seen: Seen) -> Iterator[Broken]:
    if seen.checked_out:
        yield 3, "the connection is not back in the pool"
    elif seen.in_transaction:
        yield 3, "the session is still in a transaction"
    elif seen.holds_objects:
        yield 3, "the session is not closed: it still holds the objects it has loaded"
    number = 5 if case.call == "rollback" else 3
    if uncommitted := seen.found - seen.rows:
        found = "the connection is back in the pool with its transaction open: "
        yield number, f"{found}the next session on it finds {_rows(uncommitted)}"
    elif seen.next_error is not None:
        found = f"the next session on the connection fails: {named(seen.next_error)}"
        yield number, found
    if seen.works_after:
        yield 7, "a statement afterwards is executed, on a connection taken anew"
    if any(row in seen.told for row in ("row-1", "row-2")):
        yield 15, "a log record or a note of the exception holds what was to be stored"


def _tells_of(left: BaseException | None, error: BaseException) -> bool:
    while left is not None and left is not error:
        left = left.__context__
    return left is error


def _rows(texts: frozenset[str]) -> str:
    return " and ".join(f"the row {text!r}" for text in sorted(texts))
