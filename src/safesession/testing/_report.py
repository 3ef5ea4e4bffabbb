"""What `verify` has found, and how it reads."""

import textwrap
from collections.abc import Iterable, Mapping

from safesession.errors import SafeSessionError

from ._seen import Finding

PROMISES = {
    1: "The exception raised in the block leaves unchanged",
    2: "All of the work is committed, or none",
    3: "The session is closed, its connection back and clean",
    4: "A commit that fails is raised",
    5: "A cleanup that fails hides no exception",
    6: "A failed flush is heard of, even if it was caught",
    7: "After its end the session refuses work",
    9: "A cancelled exit runs to its end",
    10: "The transaction ends before the answer begins",
    11: "A 400 is a 400, and a 422 a 422",
    12: "A request has one session",
    13: "Endpoints and WebSockets of each kind are served",
    14: "Requests that fail all at once are all answered",
    15: "Log and notes hold no parameters",
}

OF_A_UNIT = frozenset({1, 2, 3, 4, 5, 6, 7, 15})
OF_A_TASK = frozenset({9})
OF_A_REQUEST = frozenset({10, 11, 12, 13, 14})

_WIDTH = max(map(len, PROMISES.values()))


class ContractBroken(SafeSessionError, AssertionError):
    """A session factory does not keep the contract.

    The message is the report: which promises are broken, each with the smallest
    example. Mend the factory, or name the promises that you can do without in
    ``verify(..., ignore=...)``.

    .. versionadded:: 0.1
    """


class Report:
    """Which promises a session factory keeps.

    Attributes:
        promises: The numbers of the promises that it was held against.
        broken: The first finding for each promise that is broken, by its number.
        notes: What else there is to know: for an app, the route whose session it is.

    As a string it is a table, with the notes and an example for each promise that is
    broken.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        self.promises: set[int] = set()
        self.broken: dict[int, Finding] = {}
        self.notes: list[str] = []

    def add(self, promises: Iterable[int], findings: Iterable[Finding]) -> None:
        """Take in that these promises were asked for, and what was found."""
        self.promises.update(promises)
        for finding in findings:
            if finding.promise in self.promises:
                self.broken.setdefault(finding.promise, finding)

    def verdict(self, promise: int) -> str:
        """Return ``"kept"``, ``"BROKEN"``, or ``"-"`` for what was not asked."""
        if promise in self.broken:
            return "BROKEN"
        return "kept" if promise in self.promises else "-"

    def raise_for_broken(self) -> None:
        """Raise where a promise is broken.

        Raises:
            ContractBroken: With the report as its message.
        """
        if self.broken:
            number = len(self.broken)
            told = f"{number} promise{'s are' if number > 1 else ' is'} broken"
            raise ContractBroken(f"{told}\n\n{self}")

    def __str__(self) -> str:
        return f"{table({'': self})}\n{self.details()}"

    def details(self) -> str:
        """Return the notes, and an example of each promise that is broken."""
        return "".join(f"    {note}\n" for note in self.notes) + self.examples()

    def examples(self) -> str:
        """Return an example of each promise that is broken."""
        return "".join(map(_example, sorted(self.broken.items())))


def table(reports: Mapping[str, Report]) -> str:
    """Return the verdicts of several reports side by side."""
    widths = {name: max(len(name), len("BROKEN")) for name in reports}
    heading = "  ".join(name.ljust(width) for name, width in widths.items())
    lines = [f"{'':4}{'':{_WIDTH}}  {heading}"] if heading.strip() else []
    for number, promise in PROMISES.items():
        verdicts = "  ".join(
            report.verdict(number).ljust(widths[name])
            for name, report in reports.items()
        )
        lines.append(f"{number:>2}  {promise:<{_WIDTH}}  {verdicts}")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _example(numbered: tuple[int, Finding]) -> str:
    number, finding = numbered
    example = textwrap.indent(finding.example, " " * 8)
    return f"{number:>2}  {finding.found}:\n{example}\n"
