"""What is seen of a unit of work is judged, as a table."""

from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError

from safesession.testing._cases import (
    INTERRUPT,
    ODD,
    Case,
    adding,
    clashing,
    clashing_at_commit,
    flushing,
    nothing,
    poisoning,
    raising,
)
from safesession.testing._judge import judge
from safesession.testing._trial import Seen

ERROR = LookupError("of the block")
FAILURE = OSError("of the driver")
STOP = KeyboardInterrupt()
CLASH = IntegrityError("INSERT", {}, Exception("UNIQUE"))
WRAPPED = DBAPIError("COMMIT", {}, FAILURE)
OTHER = RuntimeError("generator didn't stop\nafter throw()")
WORDLESS = RuntimeError()
AFTER_ERROR = KeyboardInterrupt()
AFTER_ERROR.__context__ = RuntimeError()
AFTER_ERROR.__context__.__context__ = ERROR

OK = frozenset({"row-1"})
BOTH = frozenset({"row-1", "row-2"})
FOUND = "the connection is back with an open transaction: the next unit on it"
FAILS = "the next unit on the connection fails by"
RAISED = {"error": ERROR, "left": ERROR}


def seen(failure: BaseException | None = None, **others: Any) -> Seen:
    return Seen(failure, **others)


COMMIT, ROLLBACK, RESET = (
    Case(adding, None, "commit"),
    Case(flushing, ValueError, "rollback"),
    Case(adding, None, "reset"),
)
KEPT = [
    (Case(nothing), seen()),
    (Case(adding), seen(rows=OK, found=OK)),
    (Case(raising, ValueError), seen(**RAISED)),
    (Case(raising, ValueError), seen(**RAISED, links=(OTHER,), links_left=(OTHER,))),
    (Case(clashing), seen(error=CLASH, left=CLASH)),
    (Case(clashing_at_commit), seen(left=CLASH)),
    (Case(poisoning), seen(left=OTHER)),
    (COMMIT, seen(FAILURE, left=FAILURE)),
    (COMMIT, seen(FAILURE, left=WRAPPED)),
    (ROLLBACK, seen(FAILURE, **RAISED)),
    (RESET, seen(FAILURE, rows=OK, found=OK)),
    (Case(adding, None, "commit", INTERRUPT), seen(STOP, left=STOP)),
    (
        Case(flushing, ValueError, "rollback", INTERRUPT),
        seen(AFTER_ERROR, error=ERROR, left=AFTER_ERROR),
    ),
    (
        Case(adding, None, "reset", INTERRUPT),
        seen(STOP, left=STOP, rows=OK, found=OK),
    ),
    (Case(nothing), seen(told="row")),
]


@pytest.mark.parametrize("case, what", KEPT)
def test_right_outcome_shows_nothing(case: Case, what: Seen) -> None:
    """What a promise asks for is no fault."""
    assert list(judge(case, what, commits=True)) == []


BROKEN: list[tuple[Case, Seen, tuple[int, str]]] = [
    (
        Case(raising, ValueError),
        seen(error=ERROR),
        (1, "nothing leaves in its place"),
    ),
    (
        Case(raising, ValueError),
        seen(error=ERROR, left=OTHER),
        (1, "RuntimeError: generator didn't stop leaves in its place"),
    ),
    (
        Case(raising, ValueError),
        seen(error=ERROR, left=WORDLESS),
        (1, "RuntimeError leaves in its place"),
    ),
    (
        Case(nothing),
        seen(left=WORDLESS),
        (1, "RuntimeError leaves in its place"),
    ),
    (
        Case(raising, ValueError),
        seen(**RAISED, links=(None, None, False), links_left=(None, OTHER, False)),
        (1, "its cause or its context is another"),
    ),
    (
        Case(adding),
        seen(),
        (2, "the block ends normally, and nothing of it is committed"),
    ),
    (
        Case(flushing, ValueError),
        seen(**RAISED, rows=OK, found=OK),
        (2, "the unit failed, and the row 'row-1' is committed"),
    ),
    (
        Case(flushing, ValueError),
        seen(**RAISED, rows=BOTH, found=BOTH),
        (2, "the unit failed, and the row 'row-1' and the row 'row-2' is committed"),
    ),
    (
        COMMIT,
        seen(FAILURE, left=FAILURE, rows=OK, found=OK),
        (2, "the unit failed, and the row 'row-1' is committed"),
    ),
    (
        Case(nothing),
        seen(checked_out=1, in_transaction=True, holds_objects=True),
        (3, "its connection is not back in the pool"),
    ),
    (
        Case(nothing),
        seen(in_transaction=True, holds_objects=True),
        (3, "the session is in a transaction"),
    ),
    (
        Case(nothing),
        seen(holds_objects=True),
        (3, "the session is not closed: it holds what it has loaded"),
    ),
    (
        Case(flushing, ValueError),
        seen(**RAISED, found=OK, next_error=OTHER),
        (3, f"{FOUND} finds the row 'row-1'"),
    ),
    (
        RESET,
        seen(FAILURE, rows=OK, found=BOTH),
        (3, f"{FOUND} finds the row 'row-2'"),
    ),
    (
        Case(nothing),
        seen(next_error=OTHER),
        (3, f"{FAILS} RuntimeError: generator didn't stop"),
    ),
    (
        COMMIT,
        seen(FAILURE),
        (4, "nothing leaves in place of the commit's error"),
    ),
    (
        COMMIT,
        seen(FAILURE, left=DBAPIError("COMMIT", {}, OSError())),
        (4, "DBAPIError: (builtins.OSError)  leaves in place of the commit's error"),
    ),
    (
        Case(adding, None, "commit", ODD),
        seen(FAILURE, left=OTHER),
        (
            4,
            "RuntimeError: generator didn't stop leaves in place of the commit's error",
        ),
    ),
    (
        Case(clashing_at_commit),
        seen(),
        (4, "nothing leaves in place of the commit's error"),
    ),
    (
        Case(clashing_at_commit),
        seen(left=WORDLESS),
        (4, "RuntimeError leaves in place of the commit's error"),
    ),
    (
        ROLLBACK,
        seen(FAILURE, error=ERROR, left=FAILURE),
        (5, "OSError: of the driver leaves in its place"),
    ),
    (
        ROLLBACK,
        seen(FAILURE, **RAISED, found=OK),
        (5, f"{FOUND} finds the row 'row-1'"),
    ),
    (
        ROLLBACK,
        seen(FAILURE, **RAISED, next_error=WORDLESS),
        (5, f"{FAILS} RuntimeError"),
    ),
    (
        RESET,
        seen(FAILURE, left=FAILURE, rows=OK, found=OK),
        (5, "OSError: of the driver leaves in its place"),
    ),
    (
        Case(adding, None, "commit", INTERRUPT),
        seen(STOP),
        (5, "the interrupt is lost: nothing leaves"),
    ),
    (
        Case(flushing, ValueError, "rollback", INTERRUPT),
        seen(STOP, **RAISED),
        (5, "the interrupt is lost: LookupError: of the block leaves"),
    ),
    (
        Case(flushing, ValueError, "rollback", INTERRUPT),
        seen(STOP, error=ERROR, left=STOP),
        (5, "the interrupt leaves without the exception of the block"),
    ),
    (
        Case(poisoning),
        seen(),
        (6, "the block ends as if all were well, and nothing was written"),
    ),
    (
        Case(nothing),
        seen(works_after=True),
        (7, "the session takes up work again, and a connection"),
    ),
    (
        Case(nothing),
        seen(told="[parameters: ('row-1',)]"),
        (15, "the log or a note holds the parameters of a statement"),
    ),
    (
        Case(nothing),
        seen(told="[parameters: ('row-2',)]"),
        (15, "the log or a note holds the parameters of a statement"),
    ),
]


@pytest.mark.parametrize("case, what, broken", BROKEN)
def test_wrong_outcome_shows_its_fault(
    case: Case, what: Seen, broken: tuple[int, str]
) -> None:
    """One thing that is wrong breaks one promise, and is said in the words for it."""
    findings = list(judge(case, what, commits=True))

    assert [broken] == [(each.promise, each.found) for each in findings]
    assert {case.example(True)} == {each.example for each in findings}


def test_each_fault_of_a_unit_is_shown() -> None:
    """A unit may break several promises, of one example."""
    all_wrong = seen(
        error=ERROR,
        rows=OK,
        found=OK,
        checked_out=1,
        next_error=OTHER,
        works_after=True,
        told="row-1",
    )

    findings = list(judge(Case(raising, ValueError), all_wrong, commits=False))

    assert [1, 2, 3, 3, 7, 15] == [each.promise for each in findings]


def test_example_commits_where_the_block_has_to() -> None:
    """The lines of a finding are those that were run."""
    (finding,) = judge(Case(adding), seen(), commits=False)

    assert finding.example == 'session.add(Row(text="row-1"))\nsession.commit()'
