"""What `verify` has found is told promise by promise."""

import pytest

from safesession import SafeSessionError
from safesession.testing import ContractBroken, Report
from safesession.testing._report import PROMISES, table
from safesession.testing._seen import Finding


def finding(promise: int, found: str = "it is seen", example: str = "pass") -> Finding:
    return Finding(promise, example, found)


@pytest.fixture
def report() -> Report:
    return Report()


def test_new_report_has_asked_for_nothing(report: Report) -> None:
    """No promise is kept before it was asked for."""
    assert report.promises == set()
    assert report.broken == {}
    assert {"-"} == {report.verdict(promise) for promise in PROMISES}
    report.raise_for_broken()


def test_verdicts(report: Report) -> None:
    """A promise is kept or broken where it was asked for, in any number of turns."""
    report.add({1, 2}, [finding(2)])
    report.add({9}, [])

    assert report.promises == {1, 2, 9}
    assert ["kept", "BROKEN", "-", "kept"] == [*map(report.verdict, (1, 2, 3, 9))]


def test_first_finding_is_the_one_that_is_told(report: Report) -> None:
    """The units of work come from the smallest up, so the first is the smallest."""
    report.add({1, 2}, [finding(1, "first"), finding(2), finding(1, "second")])
    report.add({1}, [finding(1, "third")])

    assert report.broken == {1: finding(1, "first"), 2: finding(2)}


def test_finding_that_was_not_asked_for_is_passed_over(report: Report) -> None:
    """What is found of an ignored promise is no fault."""
    report.add({1}, [finding(3), finding(1)])

    assert report.broken == {1: finding(1)}


TABLE = """\
                                                          get     get_session
 1  The exception raised in the block leaves unchanged    BROKEN  -
 2  All of the work is committed, or none                 kept    BROKEN
 3  The session is closed, its connection back and clean  -       -
 4  A commit that fails is raised                         -       -
 5  A cleanup that fails hides no exception               -       -
 6  A failed flush is heard of, even if it was caught     -       -
 7  After its end the session refuses work                -       -
 9  A cancelled exit runs to its end                      -       -
10  The transaction ends before the answer begins         -       kept
11  A 400 is a 400, and a 422 a 422                       -       -
12  A request has one session                             -       -
13  Endpoints and WebSockets of each kind are served      -       -
14  Requests that fail all at once are all answered       -       -
15  Log and notes hold no parameters                      -       -
"""


def test_reports_side_by_side() -> None:
    """Each has a column as wide as its name and its verdicts."""
    get, get_session = Report(), Report()
    get.add({1, 2}, [finding(1)])
    get_session.add({2, 10}, [finding(2)])

    printed = table({"get": get, "get_session": get_session})

    assert printed == TABLE


def test_report_as_text(report: Report) -> None:
    """A table without a heading, and an example of each broken promise in order."""
    report.add({1, 2, 10}, [finding(10, "late", "with a:\n    pass"), finding(2)])

    assert str(report) == f"{table({'': report})}\n{report.examples()}"
    assert str(report).startswith(
        " 1  The exception raised in the block leaves unchanged "
    )
    assert report.examples() == (
        " 2  it is seen:\n        pass\n10  late:\n        with a:\n            pass\n"
    )


def test_notes_come_before_the_examples(report: Report) -> None:
    """What else there is to know stands below the table, in lines of its own."""
    report.notes += ["Of the route /.", "Of no other."]
    notes = "    Of the route /.\n    Of no other.\n"
    assert str(report) == f"{table({'': report})}\n{notes}"

    report.add({2}, [finding(2)])

    assert str(report) == f"{table({'': report})}\n{notes}{report.examples()}"


@pytest.mark.parametrize(
    "promises, told", [({3}, "1 promise is broken"), ({3, 5}, "2 promises are broken")]
)
def test_broken_promise_is_raised(
    report: Report, promises: set[int], told: str
) -> None:
    """The error is of the package, and an assertion to pytest."""
    report.add(promises, map(finding, promises))

    with pytest.raises(ContractBroken) as caught:
        report.raise_for_broken()

    assert str(caught.value) == f"{told}\n\n{report}"
    assert isinstance(caught.value, SafeSessionError)
    assert isinstance(caught.value, AssertionError)
