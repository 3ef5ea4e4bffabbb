"""The command: ``python -m benchmarks --help``."""

import argparse
import sys
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from . import growth, requests, starvation
from .check import WrongAnswer, require_right_answers
from .client import run
from .compare import RULE, NoSuchVersion, compare
from .databases import Database, postgresql, sqlite
from .figures import page
from .growth import measure_growth
from .machine import facts, leave_core
from .report import show, tables
from .requests import measure_requests
from .results import Results
from .scopes import measure_scopes
from .starvation import measure_starvation
from .variants import BASELINE, SAFESESSION, installed, left_out

PARTS = ("scope", *requests.PARTS, "starvation", "growth")


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: see that it works"
    )
    parser.add_argument(
        "--only",
        type=parts,
        default=PARTS,
        metavar="PART,...",
        help=f"some of: {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--no-postgresql", action="store_true", help="measure on SQLite alone"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path(".bench/results.json"),
        metavar="FILE",
        help="where the raw figures go (default: %(default)s)",
    )
    parser.add_argument(
        "--compare",
        nargs="?",
        const="",
        metavar="REF",
        help="measure safesession as it stands beside itself at REF, by default where "
        f"HEAD has left main, in about two minutes; {RULE}",
    )
    commands = parser.add_subparsers(dest="command", metavar="charts FILE")
    charts = commands.add_parser("charts", help="draw the charts of the docs")
    charts.add_argument("file", type=Path, help="the raw figures")
    charts.add_argument("--into", type=Path, default=Path("docs/performance"))
    return parser


def parts(text: str) -> list[str]:
    """Return the parts that are named, or raise ValueError."""
    named = text.split(",")
    if not set(named) <= set(PARTS):
        raise ValueError(text)
    return named


async def measure(options: argparse.Namespace) -> None:
    """Measure, write the raw figures after each part, and print the tables."""
    quick = options.quick
    variants = installed()
    results = Results(facts(), left_out())
    databases: list[Database] = []

    def note(part: str) -> None:
        results.write(options.json)
        print(f"{part}: done", file=sys.stderr)

    with ExitStack() as stack:
        databases.append(stack.enter_context(sqlite()))
        if not options.no_postgresql:
            databases.append(stack.enter_context(postgresql()))
        for database in databases:
            await require_right_answers(database, variants)
        note("Check")
        for database in databases:
            if "scope" in options.only:
                rounds = 5 if quick else 80
                results.series += await measure_scopes(database, rounds, 0.01)
                note(f"Scope on {database.name}")
        rounds, seconds = (2, 0.05) if quick else (16, 0.1)
        for part, database in product(requests.PARTS, databases):
            if part in options.only:
                results.series += await measure_requests(
                    database, variants, rounds, seconds, part
                )
                note(f"{part.capitalize()} on {database.name}")
        on_sqlite = databases[0]
        if quick:
            # The others fail as the baseline does, and take their time for it.
            variants = [v for v in variants if v.name in (BASELINE, SAFESESSION)]
        if "starvation" in options.only:
            pools = starvation.POOLS[:1] if quick else starvation.POOLS
            results.starvation += await measure_starvation(on_sqlite, variants, pools)
            note("Starvation")
        if "growth" in options.only:
            levels = (10, 100) if quick else growth.LEVELS
            results.growth += await measure_growth(on_sqlite, variants, levels)
            note("Growth")
    show(results)
    print(f"The raw figures are in {options.json}.")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "charts":
            # matplotlib is slow to import, and nothing else needs it.
            from .charts import draw

            results = Results.read(options.file)
            for path in draw(results, options.into):
                print(path)
            told = options.into / "figures.md"
            told.write_text(page(tables(results)), encoding="utf-8")
            print(told)
            return 0
        leave_core()
        if options.compare is not None:
            return 0 if run(compare(options.compare, 4, 0.1)) else 1
        run(measure(options))
    except (NoSuchVersion, WrongAnswer) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
