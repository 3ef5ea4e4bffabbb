"""The charts of the docs, drawn from the raw figures of a run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import requests, scopes, variants
from .ratios import Spread, cost, speed
from .results import Burst, Case, Load, Results, Series, by_case

# Four and a half times as light as black, and as dark as white.
GREY = "#757575"
# Of middling lightness, to be seen on white and on black.
COLOURS = ["#808080", "#b07d2b", "#2a9d4e", "#4a86d8", "#c0559f", "#d0603a"]
# For who does not tell the colours apart.
MARKERS = ["o", "s", "D", "^", "v", "X"]
STYLE: Any = {
    "svg.fonttype": "none",
    # The same names in each drawing of the same figures.
    "svg.hashsalt": "safesession",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.titlesize": 11,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
}


def draw(results: Results, directory: Path) -> Iterator[Path]:
    """Draw all charts that there are figures for, and yield their files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, figure in figures(results):
        path = directory / f"{name}.svg"
        with mpl.rc_context(STYLE):
            # No date: what is drawn again from the same figures is the same file.
            figure.savefig(path, transparent=True, metadata={"Date": None})
        yield path


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    found = by_case(results.series, "scope")
    if found:
        yield "scope", scope_figure(found)
    for part in requests.PARTS:
        cases = by_case(results.series, part)
        for database in dict.fromkeys(case.database for case in cases):
            here = {case: cases[case] for case in cases if case.database == database}
            yield f"{part}-{database.lower()}", requests_figure(here)
    if results.starvation:
        yield "starvation", starvation_figure(results.starvation)
    if results.growth:
        yield "growth", growth_figure(results.growth)


@contextmanager
def panels(
    rows: int, columns: int, width: float, height: float
) -> Iterator[tuple[Figure, Any]]:
    """Yield a figure with so many panels."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False)


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return for each variant its colour, and its marker."""
    pairs = zip(COLOURS, MARKERS, strict=True)
    return dict(zip(names, pairs, strict=False))


def scope_figure(found: dict[Case, dict[str, Series]]) -> Figure:
    """Draw what a scope costs, a panel for each database and kind of session."""
    keys = [*dict.fromkeys((case.database, case.session) for case in found)]
    with panels(1, len(keys), 2.6 * len(keys), 2.6) as (figure, axes):
        for key, axis in zip(keys, axes[0], strict=True):
            cases = [case for case in found if (case.database, case.session) == key]
            ratio_panel(axis, cases, found, scopes.BASELINE, cost)
            axis.set_title(f"{key[0]},\n{key[1]} session")
            axis.set_xlabel("time, less is better")
            axis.set_xlim(left=0)
        legend_below(figure, axes[0][0])
    return figure


def requests_figure(found: dict[Case, dict[str, Series]]) -> Figure:
    """Draw throughput: a column for each kind of session, a row for 1 and for 50."""
    sessions = [*dict.fromkeys(case.session for case in found)]
    levels = [*dict.fromkeys(case.concurrency for case in found)]
    with panels(len(levels), len(sessions), 10, 3.4 * len(levels)) as (figure, axes):
        for row, level in enumerate(levels):
            for column, session in enumerate(sessions):
                axis = axes[row][column]
                cases = [
                    case
                    for case in found
                    if (case.session, case.concurrency) == (session, level)
                ]
                ratio_panel(axis, cases, found, variants.BASELINE, speed)
                axis.set_title(f"{session}, {level} at once")
                axis.set_xlabel("throughput, more is better")
        # The async sessions have each of the variants.
        legend_below(figure, axes[0][-1])
    return figure


def ratio_panel(
    axis: Axes,
    cases: Sequence[Case],
    found: dict[Case, dict[str, Series]],
    baseline: str,
    ratio: Callable[[Sequence[float], Sequence[float]], Spread | None],
) -> None:
    """Draw a median and its quartiles for each case and variant, beside a line at 1."""
    names = [*found[cases[0]]]
    look = looks(names)
    axis.axvline(1, color=GREY, linewidth=1, label=baseline)
    others = [name for name in names if name != baseline]
    for number, name in enumerate(others):
        colour, marker = look[name]
        for place, case in enumerate(cases):
            series = found[case]
            spread = ratio(series[name].rates, series[baseline].rates)
            if spread is None:
                continue
            axis.errorbar(
                spread.median,
                place + 0.7 * ((number + 0.5) / len(others) - 0.5),
                xerr=[[spread.median - spread.low], [spread.high - spread.median]],
                fmt=marker,
                markersize=4,
                color=colour,
                label=name if place == 0 else None,
            )
    axis.set_yticks(range(len(cases)), [case.work for case in cases])
    axis.invert_yaxis()


def legend_below(figure: Figure, axis: Axes) -> None:
    """Name the colours of one panel, for all of them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)


def starvation_figure(bursts: Sequence[Burst]) -> Figure:
    """Draw how many of the requests were answered, a panel for each pool."""
    pools = [*dict.fromkeys(burst.pool for burst in bursts)]
    names = [*dict.fromkeys(burst.variant for burst in bursts)]
    look = looks(names)
    with panels(1, len(pools), 10, 4) as (figure, axes):
        for pool, axis in zip(pools, axes[0], strict=True):
            here = [burst for burst in bursts if burst.pool == pool]
            cases = [*dict.fromkeys((burst.endpoint, burst.auth) for burst in here)]
            for number, name in enumerate(names):
                colour, _ = look[name]
                bars = [burst for burst in here if burst.variant == name]
                axis.barh(
                    [
                        cases.index((bar.endpoint, bar.auth))
                        + 0.8 * ((number + 0.5) / len(names) - 0.5)
                        for bar in bars
                    ],
                    [bar.answered for bar in bars],
                    height=0.7 / len(names),
                    color=colour,
                    label=name,
                )
            labels = [
                endpoint.replace("sync session ", "") + (",\nauth" if auth else "")
                for endpoint, auth in cases
            ]
            axis.set_yticks(range(len(cases)), labels)
            axis.invert_yaxis()
            axis.set_title(f"pool {pool}")
            axis.set_xlabel(f"answered, of {here[0].answered + here[0].failed}")
        legend_below(figure, axes[0][0])
    return figure


def growth_figure(loads: Sequence[Load]) -> Figure:
    """Draw what becomes of requests, and of memory, as more of them are out at once."""
    sessions = [*dict.fromkeys(load.session for load in loads)]
    baseline = {
        (load.session, load.concurrency): load.peak_memory
        for load in loads
        if load.variant == variants.BASELINE
    }

    def failed(load: Load) -> float:
        return 100 * load.errors / (load.answered + load.errors)

    def memory(load: Load) -> float | None:
        of = baseline[load.session, load.concurrency]
        return load.peak_memory / of if load.peak_memory and of else None

    measures: dict[str, Callable[[Load], float | None]] = {
        "failed, %": failed,
        "p50 of the others, s": lambda load: load.p50,
        "p99 of the others, s": lambda load: load.p99,
        "memory, of baseline": memory,
    }
    names = [*dict.fromkeys(load.variant for load in loads)]
    shape = (len(sessions), len(measures))
    with panels(*shape, 11, 2.9 * len(sessions)) as (figure, axes):
        for session, row in zip(sessions, axes, strict=True):
            here = [load for load in loads if load.session == session]
            for (title, measure), axis in zip(measures.items(), row, strict=True):
                growth_panel(axis, here, names, measure)
                axis.set_title(f"{session}:\n{title}")
                if title.endswith("s"):
                    axis.set_yscale("log")
            row[0].set_ylim(-4, 104)
        # The async sessions have each of the variants.
        legend_below(figure, axes[-1][0])
    return figure


def growth_panel(
    axis: Axes,
    loads: Sequence[Load],
    names: Sequence[str],
    measure: Callable[[Load], float | None],
) -> None:
    """Draw a line for each variant, through what there is of it."""
    for name, (colour, marker) in looks(names).items():
        points = [
            (load.concurrency, value)
            for load in loads
            if load.variant == name and (value := measure(load)) is not None
        ]
        if points:
            levels, values = zip(*points, strict=True)
            axis.plot(
                levels,
                values,
                linestyle="-",
                marker=marker,
                markersize=4,
                color=colour,
                label=name,
            )
    axis.set_xscale("log")
    ticks = [*dict.fromkeys(load.concurrency for load in loads)]
    axis.set_xticks(ticks, [str(tick) for tick in ticks], rotation=60)
    axis.minorticks_off()
    axis.set_xlabel("requests at once")
