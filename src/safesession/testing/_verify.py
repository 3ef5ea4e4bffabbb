"""`verify`: hold a session factory against the contract."""

from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any

from safesession.errors import InvalidArgument

from ._cancelled import interrupted_exits
from ._cases import CASES, INTERRUPT, Case, adding
from ._factories import harness_for, is_in_request
from ._faults import loses_connections
from ._harness import Harness, InTask
from ._heard import Heard
from ._judge import judge
from ._report import OF_A_REQUEST, OF_A_TASK, OF_A_UNIT, PROMISES, Report
from ._seen import Finding
from ._trial import Trial


def verify(
    factory: Any, *, route: str | None = None, ignore: Collection[int] = ()
) -> Report:
    """Hold a session factory against the contract, and report what it breaks.

    Each promise is tried by units of work from the smallest up, with exceptions of
    every make, with calls of the driver that fail, and, where there is a task,
    cancelled at each suspension of the exit. The first that breaks a promise is in
    the report.

    .. code-block:: python

        def test_get_session():
            verify(get_session).raise_for_broken()

    The sessions have to be bound to a database that may be written to: a table of a
    name of its own is made there, and dropped again. The connections in the engine's
    pool are closed. It is to be called where no event loop is running.

    Args:
        factory: What opens sessions: a dependency written for FastAPI, a sessionmaker
            (whose ``begin()`` is taken), a callable that returns a context manager or
            an async one, or a FastAPI app.
        route: The path of the route of an app whose session is taken. Default: the
            first route whose endpoint has a parameter annotated as a session.
        ignore: Numbers of promises that are not asked for. Default: none.

    Returns:
        A report. Nothing is raised for a promise that is broken, but by its
        ``raise_for_broken()``.

    Raises:
        InvalidArgument: It is no session factory, or its sessions are bound to no
            database in which one connection sees what another has committed; or a
            promise to ignore is not among those asked for.
        MissingExtra: It is a dependency, and FastAPI is not installed.

    .. versionadded:: 0.1
    """
    if not PROMISES.keys() >= {*ignore}:
        raise InvalidArgument(
            f"verify() got ignore={set(ignore)!r}. Pass numbers of promises that it "
            f"asks for: {', '.join(map(str, PROMISES))}."
        )
    report, heard = Report(), Heard()
    with heard.listening(), closing(harness_for(factory, route)) as harness:
        harness.listen(heard)
        with Trial(harness) as trial:
            for promises, findings in _checks(trial, harness):
                report.add(promises - {*ignore}, findings)
    report.notes += [*filter(None, [harness.note]), *heard.notes]
    if not report.promises:
        raise InvalidArgument(
            "verify() was told to ignore all that it could ask of this factory. Leave "
            "out ignore, or some of its numbers."
        )
    return report


def _checks(
    trial: Trial, harness: Harness
) -> Iterator[tuple[frozenset[int], Iterator[Finding]]]:
    """Yield the promises that can be asked for, with what shows that one is broken."""
    yield OF_A_UNIT, _of_units(trial)
    if isinstance(harness, InTask):
        yield OF_A_TASK, interrupted_exits(trial, harness)
    if is_in_request(harness):
        from ._serving import Serving

        yield OF_A_REQUEST, Serving(trial, harness).findings()


def _of_units(trial: Trial) -> Iterator[Finding]:
    with trial.from_scratch():
        # Before its issue 13699.
        lost_by_sqlalchemy = loses_connections({"reset": KeyboardInterrupt()})
    for case in CASES:
        if case.error is not None and not trial.harness.carries(case.error()):
            continue
        if lost_by_sqlalchemy and case.call == "reset" and case.how == INTERRUPT:
            continue
        seen = trial.observe(case)
        if seen is None:
            continue
        yield from judge(case, seen, trial.commits)
        if case == Case(adding):
            # Where the block has to commit by itself, that is one fault, and no more.
            trial.commits = bool(seen.rows) or seen.left is not None
