"""The promise about cancellation: an exit that is interrupted at each suspension."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from ._cases import lines_of
from ._harness import InTask, raise_if_any
from ._interrupts import INTERRUPTS, OUTLASTS_TWO, CancelAll
from ._row import Row
from ._seen import Finding, named
from ._suspensions import Interrupt, Interrupted, Unit
from ._trial import Trial


def adding(session: Session) -> None:
    session.add(Row(text="row-1"))
    session.flush()


def interrupted_exits(trial: Trial, harness: InTask) -> Iterator[Finding]:
    """Yield what shows first that an interrupted exit keeps promises 1 to 3 no more."""
    block = lines_of(adding, commit=not trial.commits)
    try:
        with trial.from_scratch():
            untouched = _run(trial, harness, 0, Interrupt())
    except Exception as error:
        told = f"the exit fails where nothing is cancelled: {named(error)}"
        yield Finding(9, block, told)
        return
    first = (untouched.of_block or 0) + 1
    for name, kind in INTERRUPTS.items():
        # Of which no exit can make good what SQLAlchemy loses.
        lost = kind is CancelAll and not OUTLASTS_TWO
        at, reached = first, not lost
        while reached:
            with trial.from_scratch() as (out, _):
                seen = _run(trial, harness, at, kind())
                found = [*_left_behind(seen, kind, len(out), trial.rows())]
            if found:
                when = f"# {name}, at await {at - first + 1} of the exit"
                yield Finding(9, f"{block}\n{when}", found[0])
                # An exit that hangs would hang for as long again.
                return
            reached = seen.reached
            at += 1


def _run(trial: Trial, harness: InTask, at: int, interrupt: Interrupt) -> Interrupted:
    async def run(unit: Unit) -> None:
        def body(session: Session) -> None:
            adding(session)
            if not trial.commits:
                session.commit()
            unit.block_ends()

        raise_if_any(await harness.left_by(body))

    return harness.wait_for(Unit(run).interrupted(at, interrupt))


def _left_behind(
    seen: Interrupted, kind: type[Interrupt], out: int, rows: frozenset[str]
) -> Iterator[str]:
    if out:
        yield "the connection is not back in the pool"
    if not (rows or seen.reached):
        yield "the block ended normally, and its row is not committed"
    # A request that is answered before its session ends may be done when it comes.
    too_late = kind.persists and seen.error is None and bool(rows)
    if not (seen.lost and too_late):
        yield from seen.faults
