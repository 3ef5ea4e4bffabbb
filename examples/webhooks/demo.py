"""Send the same deliveries to two faulty services and to a safe one, and compare.

Run it with `python examples/webhooks/demo.py`. It ends by itself, with exit status 0 if
the safe service has answered, stored and given back everything as it should.
"""

import asyncio
import json
import logging
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import httpx
from checkouts import Checkouts
from deliveries import bad, good, mixed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from service.app import create_app
from serving import serving
from sqlalchemy import Engine, event

EVENTS = [good(number) for number in range(150)]
REDELIVERIES = EVENTS[:30]
BAD = [bad(number) for number in range(150, 250)]
# Nothing is wrong with these until the database refuses their COMMIT.
REFUSED = [good(number) for number in range(250, 270)]
DELIVERIES = mixed(EVENTS + REDELIVERIES + BAD + REFUSED)
REFUSAL = """
    CREATE TABLE refusal (
        run_id TEXT REFERENCES run (id) DEFERRABLE INITIALLY DEFERRED
    );
    CREATE TRIGGER refuse AFTER INSERT ON event
    WHEN cast(substr(new.run_id, 4) AS INTEGER) >= 250
    BEGIN
        INSERT INTO refusal VALUES ('no such run');
    END;
"""
SENDERS = 20
# uvicorn hangs up after an unhandled exception, which is not what is examined here.
ONCE = httpx.Limits(max_keepalive_connections=0)
NO_ANSWER = 0
Variant = Literal["faulty", "usual", "safe"]
NAMES: dict[Variant, str] = {
    "faulty": "a second yield",
    "usual": "commit after yield",
    "safe": "safesession",
}


class ErrorLog(logging.Handler):
    """Count the errors that are logged during a block, instead of showing them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.did_not_stop = self.others = 0

    def emit(self, record: logging.LogRecord) -> None:
        told = self.format(record)
        if "generator didn't stop" in told:
            self.did_not_stop += 1
        # The refused commits are errors, and are to be logged.
        elif "FOREIGN KEY constraint failed" not in told:
            self.others += 1

    def __enter__(self) -> "ErrorLog":
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *exception: object) -> None:
        logging.getLogger().removeHandler(self)


async def deliver(url: str, advance: Callable[[], object]) -> list[int]:
    """Send the deliveries, some at a time; return how each was answered."""
    statuses = [NO_ANSWER] * len(DELIVERIES)
    waiting = iter(enumerate(DELIVERIES))

    async def send(client: httpx.AsyncClient) -> None:
        for index, body in waiting:
            with suppress(httpx.TransportError):
                response = await client.post("/webhooks", content=body)
                statuses[index] = response.status_code
            advance()

    with suppress(TimeoutError):
        async with (
            asyncio.timeout(20),
            httpx.AsyncClient(base_url=url, timeout=5, limits=ONCE) as client,
            asyncio.TaskGroup() as senders,
        ):
            for _ in range(SENDERS):
                senders.create_task(send(client))
    return statuses


def count_wrong(statuses: list[int]) -> int:
    """Count the answers that differ from what each delivery should get."""
    answers: dict[bytes, Counter[int]] = {body: Counter() for body in DELIVERIES}
    for body, status in zip(DELIVERIES, statuses, strict=True):
        answers[body][status] += 1
    right = {body: Counter([400]) for body in BAD}
    right |= {body: Counter([201]) for body in EVENTS}
    right |= {body: Counter([500]) for body in REFUSED}
    for body in REDELIVERIES:
        right[body][200] += 1
    return sum((answers[body] - right[body]).total() for body in answers)


def refuse_commits(engine: Engine, file: Path) -> None:
    """Have the database refuse the COMMIT of some deliveries."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(REFUSAL)

    @event.listens_for(engine, "connect")
    def check_constraints(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    engine.dispose()  # The connection that has created the tables does not check.


def try_out(
    session: Variant, file: Path, advance: Callable[[], object]
) -> tuple[Counter[int], dict[str, int]]:
    """Run the service with that `get_session`; return its answers and its faults."""
    app = create_app(f"sqlite:///{file}", session=session)
    refuse_commits(app.state.engine, file)
    checkouts = Checkouts(app.state.engine)
    with ErrorLog() as errors, serving(app) as url:
        statuses = asyncio.run(deliver(url, advance))
    # No request is under way any more: what is out now was not given back.
    with closing(sqlite3.connect(file)) as connection:
        runs = {run for (run,) in connection.execute("SELECT run_id FROM event")}
        [(recorded,)] = connection.execute("SELECT count(*) FROM rejected_delivery")
    told_stored = {
        json.loads(body)["resource"]["id"]
        for body, status in zip(DELIVERIES, statuses, strict=True)
        if status in (200, 201)
    }
    return Counter(statuses), {
        "wrong answers": count_wrong(statuses),
        '"didn\'t stop" errors': errors.did_not_stop,
        "other errors": errors.others,
        "events lost, told 201": len(told_stored - runs),
        "rejections not recorded": len(BAD) - recorded,
        "connections left out": checkouts.out,
    }


def comparison(names: Iterable[str], answers: Sequence[Counter[int]]) -> Table:
    """Return a table of the answers by status, one column for each service."""
    table = Table(
        title=f"The same {len(DELIVERIES)} deliveries to each",
        caption=f"{len(EVENTS)} events are to be answered 201 and stored, "
        f"{len(REDELIVERIES)} redeliveries 200, {len(BAD)} bad deliveries 400 and "
        f"recorded, {len(REFUSED)} whose COMMIT fails 500.",
    )
    table.add_column("get_session")
    for name in names:
        table.add_column(name, justify="right")
    for status in sorted(set().union(*answers)):
        label = f"answered {status}" if status != NO_ANSWER else "not answered"
        table.add_row(label, *(str(counted[status]) for counted in answers))
    table.add_section()
    return table


def main() -> int:
    """Show the comparison; return 0 if there is nothing wrong with ours."""
    console = Console()
    columns = (TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn())
    outcomes = []
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as directory,
        Progress(*columns, console=console, disable=not console.is_terminal) as bars,
    ):
        for session, name in NAMES.items():
            bar = bars.add_task(name, total=len(DELIVERIES))
            file = Path(directory, f"{session}.db")
            outcomes.append(try_out(session, file, partial(bars.advance, bar)))
    answers, findings = zip(*outcomes, strict=True)
    table = comparison(NAMES.values(), answers)
    for label in findings[0]:
        table.add_row(label, *(str(found[label]) for found in findings))
    console.print(table)
    console.print(
        "The first two are written by hand: faulty() and usual() in\n"
        "examples/webhooks/service/sessions.py. They roll a rejection's record back;\n"
        "safesession is told to commit it, by commit_on=HTTPException.",
        highlight=False,
    )
    return 1 if any(findings[-1].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
