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
from safesession.testing._seen import Seen

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
FOUND = (
    "the connection is back in the pool with its transaction open: the next session "
    "on it"
)
PLACE = "another one reached the caller:"
NONE = "no exception reached the caller"
STOPPED = "KeyboardInterrupt came during the exit"
FAILS = "the next session on the connection fails:"
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
        (1, f"the block raised an exception, and {NONE}"),
    ),
    (
        Case(raising, ValueError),
        seen(error=ERROR, left=OTHER),
        (
            1,
            (
                f"the block raised an exception, and {PLACE} RuntimeError: generator "
                "didn't stop"
            ),
        ),
    ),
    (
        Case(raising, ValueError),
        seen(error=ERROR, left=WORDLESS),
        (1, f"the block raised an exception, and {PLACE} RuntimeError"),
    ),
    (
        Case(nothing),
        seen(left=WORDLESS),
        (1, "the block ended normally, and this reached the caller: RuntimeError"),
    ),
    (
        Case(raising, ValueError),
        seen(**RAISED, links=(None, None, False), links_left=(None, OTHER, False)),
        (1, "the exception has another __cause__ or __context__ than in the block"),
    ),
    (
        Case(adding),
        seen(),
        (2, "the block ended normally, and its row is not committed"),
    ),
    (
        Case(flushing, ValueError),
        seen(**RAISED, rows=OK, found=OK),
        (2, "the work failed, and this is committed: the row 'row-1'"),
    ),
    (
        Case(flushing, ValueError),
        seen(**RAISED, rows=BOTH, found=BOTH),
        (
            2,
            (
                "the work failed, and this is committed: the row 'row-1' and the row "
                "'row-2'"
            ),
        ),
    ),
    (
        COMMIT,
        seen(FAILURE, left=FAILURE, rows=OK, found=OK),
        (2, "the work failed, and this is committed: the row 'row-1'"),
    ),
    (
        Case(nothing),
        seen(checked_out=1, in_transaction=True, holds_objects=True),
        (3, "the connection is not back in the pool"),
    ),
    (
        Case(nothing),
        seen(in_transaction=True, holds_objects=True),
        (3, "the session is still in a transaction"),
    ),
    (
        Case(nothing),
        seen(holds_objects=True),
        (3, "the session is not closed: it still holds the objects it has loaded"),
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
        (4, f"the commit failed, and {NONE}"),
    ),
    (
        COMMIT,
        seen(FAILURE, left=DBAPIError("COMMIT", {}, OSError())),
        (4, f"the commit failed, and {PLACE} DBAPIError: (builtins.OSError) "),
    ),
    (
        Case(adding, None, "commit", ODD),
        seen(FAILURE, left=OTHER),
        (
            4,
            f"the commit failed, and {PLACE} RuntimeError: generator didn't stop",
        ),
    ),
    (
        Case(clashing_at_commit),
        seen(),
        (4, f"the commit failed, and {NONE}"),
    ),
    (
        Case(clashing_at_commit),
        seen(left=WORDLESS),
        (4, f"the commit failed, and {PLACE} RuntimeError"),
    ),
    (
        ROLLBACK,
        seen(FAILURE, error=ERROR, left=FAILURE),
        (
            5,
            (
                "the block raised an exception and the rollback failed, and "
                f"{PLACE} OSError: of the driver"
            ),
        ),
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
        (
            5,
            (
                "the block ended normally and the reset failed, and this reached the "
                "caller: OSError: of the driver"
            ),
        ),
    ),
    (
        Case(adding, None, "commit", INTERRUPT),
        seen(STOP),
        (
            5,
            f"{STOPPED}, and {NONE}",
        ),
    ),
    (
        Case(flushing, ValueError, "rollback", INTERRUPT),
        seen(STOP, **RAISED),
        (
            5,
            f"{STOPPED}, and {PLACE} LookupError: of the block",
        ),
    ),
    (
        Case(flushing, ValueError, "rollback", INTERRUPT),
        seen(STOP, error=ERROR, left=STOP),
        (
            5,
            (
                f"{STOPPED} and was raised, but the exception of the block is not in "
                "its __context__"
            ),
        ),
    ),
    (
        Case(poisoning),
        seen(),
        (6, f"nothing was written, and {NONE}"),
    ),
    (
        Case(nothing),
        seen(works_after=True),
        (7, "a statement afterwards is executed, on a connection taken anew"),
    ),
    (
        Case(nothing),
        seen(told="[parameters: ('row-1',)]"),
        (15, "a log record or a note of the exception holds what was to be stored"),
    ),
    (
        Case(nothing),
        seen(told="[parameters: ('row-2',)]"),
        (15, "a log record or a note of the exception holds what was to be stored"),
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
