"""What is done in a session of somebody's, and what comes of it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from fastapi import BackgroundTasks, Response, WebSocket
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from safesession.testing._cases import Gone
from safesession.testing._faults import Faults
from safesession.testing._harness import Harness, look
from safesession.testing._request import Answer, InRequest, connect, get
from safesession.testing._row import Row
from safesession.testing._serving import adding, raising, reading, refusing
from safesession.testing._trial import Trial, texts

Work = Callable[[Session], None]
# What was done, and what came of it.
Found = tuple[str, str]

ROW = frozenset({"row-1"})


def flushing(session: Session) -> None:
    adding(session)
    session.flush()


def adding_twice(session: Session) -> None:
    session.add_all([Row(text="row-1"), Row(text="row-1")])


def catching(session: Session) -> None:
    adding_twice(session)
    # Of SQLAlchemy, or what oslo.db raises in its place.
    with suppress(Exception):
        session.flush()


def catching_commit(session: Session) -> None:
    adding_twice(session)
    with suppress(Exception):
        session.commit()


def going_on(session: Session) -> None:
    adding(session)
    session.commit()
    session.add(Row(text="row-2"))


class Probe:
    """What is the same for a block of `with` and for a request."""

    def __init__(self, trial: Trial, harness: Any) -> None:
        self._trial = trial
        self._harness = harness
        self._options: dict[str, bool] = {}
        with trial.from_scratch():
            self._try(self._note_options)
        with trial.from_scratch():
            self._try(adding)
            self._commits = trial.rows() == ROW

    def _note_options(self, session: Session) -> None:
        self._options["autoflush"] = session.autoflush
        self._options["expire_on_commit"] = session.expire_on_commit

    def _try(self, work: Work) -> Any:
        raise NotImplementedError

    def _done_by_hand(self, work: Work) -> Work:
        """Have the work end in a commit where nothing else commits it."""

        def done(session: Session) -> None:
            work(session)
            session.commit()

        return work if self._commits else done

    def _kept(self) -> str:
        return ("rolled back", "committed", "both committed")[len(self._trial.rows())]

    def options(self) -> Iterator[Found]:
        for name, value in self._options.items():
            yield f"`{name}`", str(value)


class OfBlocks(Probe):
    """Units of work in a block of a `with` statement."""

    _harness: Harness

    def _try(self, work: Work) -> BaseException | None:
        return self._harness.run(work)

    def rows(self) -> Iterator[Found]:
        """Yield the rows of the table."""
        for told, work in {
            "the block ends": adding,
            "it raises": raising,
            "a duplicate row, found by the commit": adding_twice,
            "a flush fails and is caught, and the block ends": catching,
            "`session.commit()` in the block, and more work": going_on,
        }.items():
            yield told, self._of(work)
        error = self._driver_error()
        yield (
            "it raises, and the rollback fails",
            self._of(raising, {"rollback": error}),
        )
        yield "the session is used after its end", self._after()
        yield from self.options()

    def _of(self, work: Work, faults: Any = None) -> str:
        with self._trial.from_scratch(), Faults(self._trial.engine, faults or {}):
            left = self._try(work)
            kept = self._kept()
        return f"{kept}; {'nothing' if left is None else _name(left)} leaves"

    def _driver_error(self) -> BaseException:
        driver: Any = self._trial.engine.dialect.loaded_dbapi
        error: BaseException = driver.OperationalError("rollback failed")
        return error

    def _after(self) -> str:
        with self._trial.from_scratch() as (out, _):
            self._try(adding)
            session = self._harness.session
            try:
                self._harness.call(reading, session)
            except Exception as error:
                return f"refused: {_name(error)}"
            told = f"begins anew, {len(out)} connection out"
            self._harness.call(Session.close, session)
        return told


class OfRequests(Probe):
    """Requests to endpoints that have their session by a dependency."""

    _harness: InRequest

    def _try(self, work: Work) -> Answer:
        return self._serve(self._endpoint(work))

    def rows(self) -> Iterator[Found]:
        """Yield the rows of the table."""
        yield "a row is added, and the endpoint returns", self._when()
        if not self._commits:
            yield "the same, and `session.commit()` in the endpoint", self._of(adding)
        yield "the commit fails: a duplicate row", self._of(adding_twice)
        yield "`HTTPException(400)` after a flush", self._of(refusing)
        conflict, redirect = JSONResponse({}, 409), RedirectResponse("/orders", 303)
        yield "a 409 is returned", self._of(adding, conflict)
        yield "a redirect is returned", self._of(adding, redirect)
        yield "a flush fails and is caught", self._of(catching)
        own = "its own `commit()` fails and is caught, and a 409 is returned"
        yield own, self._of(catching_commit, conflict)
        yield "`session.commit()` in the endpoint, and more work", self._of(going_on)
        yield "a background task adds a row", self._in_background()
        yield "a `StreamingResponse` reads", self._while_streaming()
        yield "a WebSocket's endpoint adds a row", self._in_websocket()
        yield from self.options()

    def _endpoint(self, work: Work, response: Response | None = None) -> Any:
        async def endpoint(session: Any = self._harness.depends) -> Any:
            await self._harness.work_on(session, work)
            return response

        return endpoint

    def _serve(self, endpoint: Any, at_start: Any = None, ws: bool = False) -> Answer:
        app = self._harness._app()
        app.add_exception_handler(IntegrityError, _tell_conflict)
        if ws:
            app.add_api_websocket_route("/", endpoint)
            return self._harness.wait_for(connect(app, self._harness._state))
        app.add_api_route("/", endpoint, response_model=None)
        return self._harness.wait_for(get(app, at_start, self._harness._state))

    def _when(self) -> str:
        rows: set[str] = set()

        async def see() -> None:
            rows.update(await look(self._trial.observer, texts))

        with self._trial.from_scratch():
            self._serve(self._endpoint(adding), see)
            if not self._trial.rows():
                return "rolled back"
        return f"committed {'before' if rows >= ROW else 'after'} the answer"

    def _of(self, work: Work, response: Response | None = None) -> str:
        if response is None and work in (adding, adding_twice):
            work = self._done_by_hand(work)
        with self._trial.from_scratch() as (out, _):
            answer = self._serve(self._endpoint(work, response))
            return f"{answer.status}, {self._kept()}{_leak(out)}"

    def _in_background(self) -> str:
        work = self._done_by_hand(flushing)

        async def endpoint(
            tasks: BackgroundTasks, session: Any = self._harness.depends
        ) -> None:
            tasks.add_task(self._harness.work_on, session, work)

        return self._afterwards(endpoint, lambda _: self._kept())

    def _while_streaming(self) -> str:
        async def endpoint(session: Any = self._harness.depends) -> Any:
            async def body() -> Any:
                await self._harness.work_on(session, reading)
                yield "read"

            return StreamingResponse(body())

        return self._afterwards(endpoint, lambda answer: answer.content.decode())

    def _in_websocket(self) -> str:
        work = self._done_by_hand(adding)

        async def endpoint(
            websocket: WebSocket, session: Any = self._harness.depends
        ) -> None:
            await websocket.accept()
            await self._harness.work_on(session, work)

        return self._afterwards(endpoint, lambda _: self._kept(), ws=True)

    def _afterwards(self, endpoint: Any, tell: Any, ws: bool = False) -> str:
        with self._trial.from_scratch() as (out, _):
            answer = self._serve(endpoint, ws=ws)
            if answer.left is not None:
                return f"refused: {_name(answer.left)}{_leak(out)}"
            return f"{tell(answer)}{_leak(out)}"


async def _tell_conflict(request: Any, error: Exception) -> Response:
    return JSONResponse({}, 409)


def _leak(out: Any) -> str:
    return ", its connection not given back" if out else ""


def _name(error: BaseException) -> str:
    return (
        "its own exception" if isinstance(error, Gone) else f"`{type(error).__name__}`"
    )
