"""Which promises a unit of work has shown to be broken, and by what."""

import operator
from collections.abc import Iterator

from sqlalchemy.exc import IntegrityError

from ._cases import Case, adding, clashing_at_commit, poisoning
from ._trial import Finding, Seen

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
            yield 5, f"the interrupt is lost: {_left(seen)}"
        elif seen.error is not None and not _tells_of(seen.left, seen.error):
            yield 5, "the interrupt leaves without the exception of the block"
    elif seen.answered and case.call in (None, "commit"):
        # The client was told, by an exception handler or a middleware of the app.
        return
    elif case.call == "commit":
        orig = getattr(seen.left, "orig", None)
        if seen.left is not seen.failure and orig is not seen.failure:
            yield 4, f"{_left(seen)} in place of the commit's error"
    elif case.body is clashing_at_commit:
        if not isinstance(seen.left, IntegrityError):
            yield 4, f"{_left(seen)} in place of the commit's error"
    elif case.body is poisoning:
        if seen.left is None:
            yield 6, "the block ends as if all were well, and nothing was written"
    elif seen.left is not seen.error:
        yield (1 if seen.failure is None else 5), f"{_left(seen)} in its place"
    elif not all(map(operator.is_, seen.links_left, seen.links)):
        yield 1, "its cause or its context is another"


def _what_is_kept(case: Case, seen: Seen) -> Iterator[Broken]:
    commits = case.body is adding and case.call != "commit"
    if seen.rows == frozenset({"row-1"} if commits else ()):
        return
    if seen.rows:
        yield 2, f"the unit failed, and {_rows(seen.rows)} is committed"
    else:
        yield 2, "the block ends normally, and nothing of it is committed"


def _what_is_left_behind(case: Case, seen: Seen) -> Iterator[Broken]:
    if seen.checked_out:
        yield 3, "its connection is not back in the pool"
    elif seen.in_transaction:
        yield 3, "the session is in a transaction"
    elif seen.holds_objects:
        yield 3, "the session is not closed: it holds what it has loaded"
    number = 5 if case.call == "rollback" else 3
    if uncommitted := seen.found - seen.rows:
        found = "the connection is back with an open transaction: the next unit on it "
        yield number, f"{found}finds {_rows(uncommitted)}"
    elif seen.next_error is not None:
        found = f"the next unit on the connection fails by {_name(seen.next_error)}"
        yield number, found
    if seen.works_after:
        yield 7, "the session takes up work again, and a connection"
    if any(row in seen.told for row in ("row-1", "row-2")):
        yield 15, "the log or a note holds the parameters of a statement"


def _tells_of(left: BaseException | None, error: BaseException) -> bool:
    while left is not None and left is not error:
        left = left.__context__
    return left is error


def _left(seen: Seen) -> str:
    return "nothing leaves" if seen.left is None else f"{_name(seen.left)} leaves"


def _name(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _rows(texts: frozenset[str]) -> str:
    return " and ".join(f"the row {text!r}" for text in sorted(texts))
