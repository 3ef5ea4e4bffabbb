"""The tables in the terminal."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from . import ratios, requests, scopes, variants
from .ratios import Spread, is_regression, speed
from .results import Burst, Case, Load, Results, Series, by_case


def wide_console() -> Console:
    """Return a console that does not break the tables where nobody's terminal is."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def show(results: Results) -> None:
    """Print all that was measured."""
    console = wide_console()
    for table in tables(results):
        console.print(table)
        console.print()
    for name, reason in results.left_out.items():
        console.print(f"Left out: {name} {reason}.", highlight=False)


def tables(results: Results) -> Iterable[Table]:
    """Yield a table for each part of the run that there is."""
    found = by_case(results.series, "scope")
    if found:
        title = "The scope alone: time beside the hand-written one, less is better"
        yield ratio_table(title, found, scopes.BASELINE, ratios.cost)
    for name, part in requests.PARTS.items():
        found = by_case(results.series, name)
        for (database, session), cases in groupby(
            found, key=lambda case: (case.database, case.session)
        ):
            what = "throughput beside the hand-written one, more is better"
            yield ratio_table(
                f"Requests on {database}, {session}{part.told}: {what}",
                {case: found[case] for case in cases},
                variants.BASELINE,
                ratios.speed,
            )
    if results.starvation:
        yield starvation_table(results.starvation)
    for session, loads in groupby(results.growth, key=lambda load: load.session):
        yield growth_table(session, [*loads])


def ratio_table(
    title: str,
    found: dict[Case, dict[str, Series]],
    baseline: str,
    ratio: Callable[[Sequence[float], Sequence[float]], Spread | None],
) -> Table:
    """Return the median of the ratios of a round, and the quartiles."""
    names = [*next(iter(found.values()))]
    names.remove(baseline)
    table = Table(*("database", "work", "at once"), *names, title=title)
    for case, series in found.items():
        cells = []
        for name in names:
            spread = ratio(series[name].rates, series[baseline].rates)
            errors = series[name].errors
            cells.append(f"{spread}{f', {errors} errors' if errors else ''}")
        work = case.work if case.concurrency else f"{case.session}, {case.work}"
        table.add_row(case.database, work, str(case.concurrency or ""), *cells)
    return table


def starvation_table(bursts: Sequence[Burst]) -> Table:
    """Return who was answered, a row for each case and a column for each variant."""
    names = [*dict.fromkeys(burst.variant for burst in bursts)]
    title = "Requests at once: answered, of all, in so many seconds"
    table = Table("pool", "endpoint", "auth", *names, title=title)
    for (pool, endpoint, auth), group in groupby(
        bursts, key=lambda burst: (burst.pool, burst.endpoint, burst.auth)
    ):
        cells = {
            burst.variant: f"{burst.answered} of {burst.answered + burst.failed}"
            f" in {burst.seconds:.1f} s"
            for burst in group
        }
        row = [cells.get(name, "") for name in names]
        table.add_row(pool, endpoint, "yes" if auth else "no", *row)
    return table


def growth_table(session: str, loads: Sequence[Load]) -> Table:
    """Return what becomes of each variant as more requests are out at once."""
    title = f"More and more requests on a pool of 5, {session}"
    columns = ("p50", "of baseline", "p99", "of baseline", "errors", "peak MiB")
    table = Table("at once", "variant", *columns, title=title)
    for concurrency, group in groupby(loads, key=lambda load: load.concurrency):
        found = {load.variant: load for load in group}
        baseline = found[variants.BASELINE]
        for name, load in found.items():
            table.add_row(
                str(concurrency),
                name,
                milliseconds(load.p50),
                quotient(load.p50, baseline.p50),
                milliseconds(load.p99),
                quotient(load.p99, baseline.p99),
                str(load.errors or ""),
                "" if load.peak_memory is None else f"{load.peak_memory / 1024:.0f}",
            )
        table.add_section()
    return table


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"


def quotient(value: float | None, baseline: float | None) -> str:
    return f"{value / baseline:.2f}" if value and baseline else ""


def show_comparison(series: Sequence[Series], before: str, now: str) -> list[Case]:
    """Print the speed of each case beside the earlier one; return what is slower."""
    table = Table("database", "session", "work", "at once", "speed", "")
    table.title = f"{now}, beside {before}: more is better"
    slower = []
    for part in ("scope", "requests"):
        for case, versions in by_case(series, part).items():
            found = speed(versions[now].rates, versions[before].rates)
            verdict = ""
            if found is None or is_regression(found) or versions[now].errors:
                slower.append(case)
                verdict = f"slower, {versions[now].errors} errors"
            at_once = str(case.concurrency or "")
            row = (case.database, case.session, case.work, at_once)
            table.add_row(*row, str(found), verdict)
    wide_console().print(table)
    return slower
