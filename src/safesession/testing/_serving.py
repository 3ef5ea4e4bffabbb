"""The promises about requests: what is checked of a dependency, beyond its unit."""

import asyncio
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, HTTPException, WebSocket
from sqlalchemy import select
from sqlalchemy.orm import Session

from ._cases import Gone, Torn, lines_of
from ._faults import Faults
from ._harness import Body, look
from ._request import Answer, AtStart, InRequest
from ._row import Row
from ._seen import Finding, in_place, named
from ._trial import Trial, texts

Work = Callable[[Session], None]

CONCURRENT = 100


def adding(session: Session) -> None:
    session.add(Row(text="row-1"))


def reading(session: Session) -> None:
    session.scalars(select(Row)).all()


def refusing(session: Session) -> None:
    session.add(Row(text="row-1"))
    session.flush()
    raise HTTPException(400)


def conflicting(session: Session) -> None:
    session.scalars(select(Row)).all()
    raise HTTPException(409)


def raising(session: Session) -> None:
    session.add(Row(text="row-1"))
    session.flush()
    raise Gone


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A function for a route, and how an example of it reads."""

    call: Callable[..., Any]
    example: str
    is_websocket: bool = False


class Serving:
    """Requests to endpoints of each kind, with their session by one dependency."""

    def __init__(self, trial: Trial, harness: InRequest) -> None:
        self._trial = trial
        self._harness = harness
        self._depends = harness.depends
        self._is_sync = isinstance(harness.session, Session)

    def findings(self) -> Iterator[Finding]:
        """Yield what shows that one of the promises 10 to 14 is broken."""
        yield from self._answers_after_the_transaction(adding)
        yield from self._answers_after_the_transaction(reading)
        yield from self._hears_of_a_failed_commit()
        yield from self._keeps_the_status()
        yield from self._shares_the_session()
        yield from self._serves_each_kind(adding)
        yield from self._serves_each_kind(raising)
        yield from self._serves_many()

    def _answers_after_the_transaction(self, work: Work) -> Iterator[Finding]:
        for endpoint in self._endpoints(work):
            rows, is_open = self._seen_at_start(endpoint)
            if work is adding and "row-1" not in rows:
                yield Finding(
                    10, endpoint.example, "the client was answered before the commit"
                )
            elif is_open:
                found = "the client was answered while the transaction was open"
                yield Finding(10, endpoint.example, found)

    def _seen_at_start(self, endpoint: Endpoint) -> tuple[set[str], bool]:
        """Return what is committed when the answer begins, and what is still open."""
        rows: set[str] = set()
        is_open = False

        async def see() -> None:
            nonlocal is_open
            is_open = bool(out)
            rows.update(await look(self._trial.observer, texts))

        with self._trial.from_scratch() as (out, _):
            self._answer(endpoint, at_start=see)
        return rows, is_open

    def _hears_of_a_failed_commit(self) -> Iterator[Finding]:
        for endpoint in self._endpoints(adding):
            with (
                self._trial.from_scratch(),
                Faults(self._trial.engine, {"commit": Torn()}),
            ):
                answer = self._answer(endpoint)
            if answer.status is not None and answer.status < 400:
                example = f"{endpoint.example}\n# the commit raises Torn"
                found = f"the commit failed, and the client was told {answer.status}"
                yield Finding(10, example, found)

    def _keeps_the_status(self) -> Iterator[Finding]:
        async def needing(number: int, session: Any = self._depends) -> None:
            pass

        invalid = Endpoint(
            needing,
            "def endpoint(number: int, session = Depends(get_session)):\n    pass\n"
            "# called without a number",
        )
        refused = ((400, endpoint) for endpoint in self._endpoints(refusing))
        for expected, endpoint in (*refused, (422, invalid)):
            answer, left = self._served(endpoint)
            found = f"the client was told {answer.status}, and not {expected}"
            if answer.status == expected:
                found = f"the client was told {expected} as it should be, but "
                if left:
                    found += "the connection is not back in the pool"
                elif self._trial.rows():
                    found += "the row is committed"
                else:
                    continue
            yield Finding(11, endpoint.example, found)

    def _shares_the_session(self) -> Iterator[Finding]:
        call = self._depends.dependency

        async def below(session: Any = self._depends) -> Any:
            return session

        for spelled, other in {
            "Depends(what_depends_on_it)": Depends(below),
            "Depends(get_session, use_cache=False)": Depends(call, use_cache=False),
            'Depends(get_session, scope="function")': Depends(call, scope="function"),
            'Depends(get_session, scope="request")': Depends(call, scope="request"),
        }.items():
            if len(self._sessions_beside(other)) != 1:
                example = (
                    f"def endpoint(one = Depends(get_session), other = {spelled}):\n"
                    "    pass"
                )
                yield Finding(12, example, "the request was given two sessions")

    def _sessions_beside(self, other: Any) -> set[int]:
        given: set[int] = set()

        async def both(one: Any = self._depends, other: Any = other) -> None:
            given.update((id(one), id(other)))

        with self._trial.from_scratch():
            self._answer(Endpoint(both, ""))
        return given

    def _serves_each_kind(self, work: Work) -> Iterator[Finding]:
        kept = frozenset({"row-1"} if work is adding else ())
        for endpoint in (*self._endpoints(work), self._websocket(work)):
            answer, left = self._served(endpoint)
            if left:
                found = "the connection is not back in the pool"
            elif self._trial.rows() != kept:
                found = "the endpoint ended normally, and its row is not committed"
                if work is raising:
                    found = "the endpoint failed, and its row is committed"
            elif work is raising and not isinstance(answer.left, Gone):
                found = f"the endpoint failed, and {in_place(answer.left)}"
            elif work is adding and answer.left is not None:
                told = f"this reached the caller: {named(answer.left)}"
                found = f"the endpoint ended normally, and {told}"
            else:
                continue
            yield Finding(13, endpoint.example, found)

    def _serves_many(self) -> Iterator[Finding]:
        # A sync session in an async endpoint would hold up the loop.
        *_, endpoint = self._endpoints(conflicting)

        async def serve() -> list[Answer]:
            serving = (self._harness.answer(endpoint.call) for _ in range(CONCURRENT))
            return await asyncio.gather(*serving)

        with self._trial.from_scratch() as (out, _):
            told = [answer.status for answer in self._harness.wait_for(serve())]
            left = len(out)
        example = f"{endpoint.example}\n# {CONCURRENT} requests at once"
        others = [str(status) for status in told if status != 409]
        if others:
            told_them = ", ".join(sorted({*others}))
            found = f"{len(others)} clients were told {told_them}, and not 409"
            yield Finding(14, example, found)
        elif left:
            yield Finding(14, example, f"{left} connections are not back in the pool")

    def _endpoints(self, work: Work) -> Iterator[Endpoint]:
        body = self._body(work)

        async def async_endpoint(session: Any = self._depends) -> None:
            await self._harness.work_on(session, body)

        def endpoint(session: Any = self._depends) -> None:
            self._harness.session = session
            body(session)

        yield Endpoint(async_endpoint, self._example("async def", "session", work))
        if self._is_sync:
            yield Endpoint(endpoint, self._example("def", "session", work))

    def _websocket(self, work: Work) -> Endpoint:
        body = self._body(work)

        async def talk(websocket: WebSocket, session: Any = self._depends) -> None:
            await websocket.accept()
            await self._harness.work_on(session, body)

        return Endpoint(
            talk, self._example("async def", "websocket, session", work), True
        )

    def _body(self, work: Work) -> Body:
        def body(session: Session) -> None:
            work(session)
            if self._has_to_commit(work):
                session.commit()

        return body

    def _has_to_commit(self, work: Work) -> bool:
        return work is adding and not self._trial.commits

    def _served(self, endpoint: Endpoint) -> tuple[Answer, int]:
        """Return the answer, and how many connections it leaves checked out."""
        with self._trial.from_scratch() as (out, _):
            return self._answer(endpoint), len(out)

    def _answer(self, endpoint: Endpoint, at_start: AtStart | None = None) -> Answer:
        return self._harness.wait_for(
            self._harness.answer(
                endpoint.call, at_start=at_start, websocket=endpoint.is_websocket
            )
        )

    def _example(self, kind: str, parameters: str, work: Work) -> str:
        lines = textwrap.indent(lines_of(work, self._has_to_commit(work)), "    ")
        return f"{kind} endpoint({parameters} = Depends(get_session)):\n{lines}"
