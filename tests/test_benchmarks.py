"""The benchmark counts rightly, and refuses to measure what does not do its work."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.orm import Session

import safesession
from benchmarks import requests
from benchmarks.check import WrongAnswer, require_right_answers
from benchmarks.client import Request, Tally, ask_times, connect
from benchmarks.databases import Database, sqlite
from benchmarks.figures import section
from benchmarks.interleaving import interleave
from benchmarks.machine import CORES, leave_core
from benchmarks.ratios import (
    Spread,
    cost,
    is_regression,
    percentile,
    ratios,
    speed,
    spread,
)
from benchmarks.results import Burst, Case, Load, Results, Series, by_case
from benchmarks.server import serving
from benchmarks.variants import SAFESESSION, VARIANTS, Variant, installed

pytestmark = pytest.mark.once

CASES = [
    Case("requests", "SQLite", "async session", "SELECT", 1),
    Case("requests", "SQLite", "async session", "SELECT", 50),
]


@pytest.fixture(scope="module")
def measured() -> Iterator[Database]:
    """Return a database such as is measured on."""
    with sqlite() as database:
        yield database


def test_ratios_are_of_one_round() -> None:
    """A rate is divided by that of the baseline in its round, if there was any."""
    assert [2.0, 0.5] == ratios([20, 5, 3], [10, 10, 0])


def test_spread() -> None:
    """Half of the values are within the quartiles."""
    assert Spread(2, 3, 4) == spread([5, 1, 4, 2, 3])
    assert Spread(7, 7, 7) == spread([7])
    assert "3.00 (2.00-4.00)" == str(spread([5, 1, 4, 2, 3]))


def test_speed_and_cost() -> None:
    """Who does twice as much in a second needs half the time for it."""
    assert Spread(2, 2, 2) == speed([20, 40], [10, 20])
    assert Spread(0.5, 0.5, 0.5) == cost([20, 40], [10, 20])
    assert None is speed([1, 1], [0, 0])


@pytest.mark.parametrize(
    "found, expected",
    [
        (Spread(0.90, 0.94, 0.99), True),
        (Spread(0.90, 0.94, 1.00), False),
        (Spread(0.93, 0.95, 0.97), False),
        (Spread(1.01, 1.02, 1.03), False),
    ],
)
def test_regression(found: Spread, expected: bool) -> None:
    """Slower is what has its median below 0.95, and its upper quartile below 1."""
    assert expected is is_regression(found)


@pytest.mark.parametrize(
    "values, percent, expected",
    [
        ([], 50, None),
        ([3], 99, 3),
        ([3, 1, 2], 50, 2),
        (range(1, 101), 99, 99),
        (range(1, 1001), 99, 990),
    ],
)
def test_percentile(
    values: Sequence[float], percent: int, expected: float | None
) -> None:
    """So many percent of the values do not exceed it."""
    assert expected == percentile(values, percent)


def test_rounds_are_interleaved() -> None:
    """In each round each case is measured once with each variant, one after another."""
    measured: list[tuple[Case, str]] = []

    async def measure(variant: str, case: Case) -> tuple[float, int]:
        measured.append((case, variant))
        return len(measured), 1

    variants = {"a": "a", "b": "b", "c": "c"}
    found = asyncio.run(interleave(variants, CASES, 4, measure))

    everything = {(case, variant) for case in CASES for variant in variants}
    for start in range(0, len(measured), 6):
        assert everything == set(measured[start : start + 6])
    for start in range(0, len(measured), 3):
        assert 1 == len({case for case, _ in measured[start : start + 3]})
    assert {tuple(measured[start : start + 6]) for start in (0, 6, 12, 18, 24)} > {
        tuple(measured[:6])
    }
    # The first round warms up.
    assert [4] * 6 == [len(series.rates) for series in found]
    assert [5] * 6 == [series.errors for series in found]
    assert min(min(series.rates) for series in found) > 6


def test_json(tmp_path: Path) -> None:
    """What is read from a file is what was written to it."""
    results = Results(
        {"python": "CPython 3.11.7", "versions": {"fastapi": "0.165.0"}},
        {"fastapi-sqla": "requires an older FastAPI"},
        [Series(CASES[0], "safesession", [1.5, 2.25], 3)],
        [Burst("5+0", "sync session in def", True, "safesession", 199, 1, 0.5)],
        [Load("async session", 10, "safesession", 0, 5, None, None, 80_000)],
    )
    path = tmp_path / "new" / "results.json"

    results.write(path)
    found = Results.read(path)

    assert results == found
    assert {CASES[0]: {"safesession": results.series[0]}} == by_case(
        found.series, "requests"
    )


def test_figures_are_told_in_tables() -> None:
    """A table of figures is one of Markdown, below its title."""
    found = section(
        "Speed", ["work", "safesession"], [("SELECT", "1.02"), ("INSERT", "")]
    )

    assert (
        "\n## Speed\n\n"
        "| work | safesession |\n| --- | --- |\n| SELECT | 1.02 |\n| INSERT |  |\n"
    ) == found


# Of the packages that are measured beside ours, where they are installed.
@pytest.mark.filterwarnings("ignore:The declarative_mixin decorator")
@pytest.mark.parametrize("variant", installed(), ids=lambda variant: variant.slug)
def test_variants_do_their_work(variant: Variant, measured: Database) -> None:
    """Each endpoint answers, the order is written, and no connection stays out."""
    asyncio.run(require_right_answers(measured, [variant]))


def test_a_variant_without_a_commit_is_refused(measured: Database) -> None:
    """Who leaves out a part of the work is not measured."""

    def install(app: FastAPI, engine: Engine) -> Any:
        def get_session() -> Iterator[Session]:
            with Session(engine) as session:
                yield session

        return Depends(get_session)

    variant = Variant("forgetful", install, None)

    with pytest.raises(WrongAnswer, match="forgetful, sync session in def, INSERT"):
        asyncio.run(require_right_answers(measured, [variant]))


ANSWER = "HTTP/1.1 {} Some\r\nContent-Length: 4\r\n\r\nnull"
REQUEST = Request("GET", "/", 200)


class Answering(asyncio.Protocol):
    """A server's side of each connection: these answers, one to each request."""

    def __init__(self, answers: Sequence[str | None]) -> None:
        self._answers = iter(answers)
        self.transports: list[asyncio.Transport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transports.append(transport)

    def data_received(self, data: bytes) -> None:
        answer = next(self._answers)
        if answer is None:
            self.transports[-1].close()
        else:
            self.transports[-1].write(answer.encode())


@asynccontextmanager
async def answering(*answers: str | None) -> AsyncIterator[int]:
    """Serve these answers; ``None`` closes the connection."""
    protocol = Answering(answers)
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: protocol, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    for transport in protocol.transports:
        transport.abort()


def ask(times: int, *answers: str | None) -> Tally:
    """Return what the load generator counts of these answers."""

    async def ask_them() -> Tally:
        async with answering(*answers) as port:
            connections = await connect(port, 1)
            tally = await ask_times(connections, REQUEST, times, deadline=30)
            connections[0].close()
            return tally

    return asyncio.run(ask_them())


@pytest.mark.parametrize("status", [201, 401, 422, 500])
def test_a_wrong_status_is_an_error(status: int) -> None:
    """Only the status that was asked for counts as an answer."""
    tally = ask(3, ANSWER.format(200), ANSWER.format(status), ANSWER.format(200))

    assert (2, 1, 2) == (tally.right, tally.wrong, len(tally.latencies))


def test_a_closed_connection_is_an_error() -> None:
    """It is counted, and the next request goes over a new one."""
    tally = ask(3, ANSWER.format(200), None, ANSWER.format(200))

    assert (2, 1) == (tally.right, tally.wrong)


def test_an_answer_without_a_length_is_an_error() -> None:
    """Where it ends would be a guess."""
    tally = ask(1, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")

    assert (0, 1) == (tally.right, tally.wrong)


def test_no_answer_is_an_error() -> None:
    """What is not answered by the deadline has failed."""

    async def ask_in_vain() -> Tally:
        async with answering("HTTP/1.1 200 OK\r\n") as port:
            connections = await connect(port, 1)
            tally = await ask_times(connections, REQUEST, 2, deadline=0.05)
            connections[0].close()
            return tally

    tally = asyncio.run(ask_in_vain())

    assert (0, 2) == (tally.right, tally.wrong)


def test_a_served_variant(measured: Database) -> None:
    """Requests over a real server are answered, and counted."""
    (variant,) = [variant for variant in VARIANTS if variant.name == SAFESESSION]
    src = Path(safesession.__file__).parents[1]

    async def ask_server() -> tuple[Tally, Tally]:
        with serving(measured, "async", [variant.name], requests.POOL, src) as server:
            connections = await connect(server.port, 10)
            read = Request("GET", f"/{variant.slug}/async/items/1", 200)
            found = await ask_times(connections, read, 50, deadline=30)
            rejected = Request("GET", f"/{variant.slug}/async/rejected", 200)
            unlike = await ask_times(connections, rejected, 20, deadline=30)
            for connection in connections:
                connection.close()
            return found, unlike

    found, unlike = asyncio.run(ask_server())

    assert (50, 0) == (found.right, found.wrong)
    assert (0, 20) == (unlike.right, unlike.wrong)


@pytest.mark.skipif(len(CORES) < 2, reason="needs Linux, and a second core to leave")
@pytest.mark.parametrize(
    "part, ours, its_own",
    [("requests", CORES[:-1], CORES[-1:]), ("as-it-comes", CORES, CORES)],
)
def test_a_server_has_the_core_that_was_left(
    measured: Database, part: str, ours: list[int], its_own: list[int]
) -> None:
    """Client and database, which this process starts, are on the others."""
    (variant,) = [variant for variant in VARIANTS if variant.name == SAFESESSION]
    src = Path(safesession.__file__).parents[1]
    leave_core()
    try:
        with (
            requests.PARTS[part].cores(),
            serving(measured, "async", [variant.name], requests.POOL, src) as server,
        ):
            assert os.sched_getaffinity(0) == set(ours)
            assert os.sched_getaffinity(server.pid) == set(its_own)
        assert os.sched_getaffinity(0) == set(CORES[:-1])
    finally:
        os.sched_setaffinity(0, CORES)
