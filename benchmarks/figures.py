"""The figures of the charts as a page of the docs, for who cannot see them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

INTRODUCTION = """\
# The figures of the charts

What [the charts](../performance.md) show, in tables: of ratios the median, and in
brackets the quartiles.
"""


def page(tables: Iterable["Table"]) -> str:
    """Return the page, with the tables that are printed after a run."""
    return INTRODUCTION + "".join(
        section(
            str(table.title),
            [str(column.header) for column in table.columns],
            zip(*(map(str, column.cells) for column in table.columns), strict=True),
        )
        for table in tables
    )


def section(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a heading and a table."""
    lines = (header, ["---"] * len(header), *rows)
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"\n## {title}\n\n{table}"
