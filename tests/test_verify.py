"""`verify` finds the faults that a session factory has, and no others."""

import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import Engine, create_engine, event, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from safesession import InvalidArgument, ScopeMisuse, async_session_scope, session_scope
from safesession.fastapi import async_session_dependency, session_dependency
from safesession.testing import ContractBroken, verify

# Held on to, as by a registry: else a session is gone when its request is.
KEPT: dict[int, Session] = {}

UNIT = {1, 2, 3, 4, 5, 6, 7, 15}
TASK = {9}
REQUEST = {10, 11, 12, 13, 14}

leaking = pytest.mark.allow_session_leaks(reason="the factory that is held leaks")


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(pool_timeout=1)


def broken(factory: Any, **options: Any) -> set[int]:
    return set(verify(factory, **options).broken)


def test_scope_keeps_all_promises(engine: Engine) -> None:
    """A scope is held against what is asked of a block."""
    report = verify(lambda: session_scope(engine))

    report.raise_for_broken()
    assert report.promises == UNIT


def test_async_scope_keeps_all_promises(async_engine: AsyncEngine) -> None:
    """An async scope is cancelled too."""
    report = verify(lambda: async_session_scope(async_engine))

    report.raise_for_broken()
    assert report.promises == UNIT | TASK


def test_dependency_keeps_all_promises(engine: Engine) -> None:
    """A dependency is held against all that can be asked."""
    report = verify(session_dependency(engine))

    report.raise_for_broken()
    assert report.promises == UNIT | TASK | REQUEST


def test_async_dependency_keeps_all_promises(async_engine: AsyncEngine) -> None:
    """An async dependency is held against all that can be asked."""
    report = verify(async_session_dependency(async_engine))

    report.raise_for_broken()
    assert report.promises == UNIT | TASK | REQUEST


@pytest.mark.parametrize(
    "name, faults, kept",
    [
        pytest.param(
            "double_yield",
            {1, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14},
            {2, 6, 15},
            marks=leaking,
        ),
        pytest.param(
            "by_hand",
            {5, 7, 9, 10, 12},
            {1, 2, 4, 6, 11, 13, 14, 15},
            marks=leaking,
        ),
        ("begin", {1, 5, 6, 7}, {2, 4, 15}),
        pytest.param(
            "sqlmodel_docs",
            {2, 3, 5, 7, 10, 12},
            {1, 4, 6, 11, 13, 14, 15},
            marks=leaking,
        ),
        pytest.param(
            "fastapi_docs",
            {2, 3, 5, 7, 10, 12},
            {1, 4, 6, 11, 13, 14, 15},
            marks=leaking,
        ),
        ("safe", set(), UNIT | TASK | REQUEST),
    ],
)
def test_examples(factories: Any, name: str, faults: set[int], kept: set[int]) -> None:
    """The faults of the usual factories are found, on any version of the libraries."""
    report = verify(getattr(factories, name))

    assert faults <= report.broken.keys()
    assert kept.isdisjoint(report.broken)


class Swallowing:
    """A context manager that holds back whatever is raised."""

    def __init__(self, engine: Engine) -> None:
        self.session = Session(engine)

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, exc_type: object, *rest: object) -> bool:
        if exc_type is None:
            self.session.commit()
        self.session.close()
        return True


@leaking
def test_swallowing_is_found(engine: Engine) -> None:
    """An exception that is held back, and an interrupt of the cleanup."""
    report = verify(lambda: Swallowing(engine))

    assert report.broken[1].found == "nothing leaves in its place"
    assert report.broken[1].example == "raise error"


@contextmanager
def committing_always(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        try:
            yield session
        finally:
            with suppress(SQLAlchemyError):
                session.commit()


def test_work_that_is_committed_all_the_same_is_found(engine: Engine) -> None:
    """A commit in `finally` keeps what should be gone, and hides that it failed."""
    report = verify(lambda: committing_always(engine))

    assert report.broken[2].found == (
        "the unit failed, and the row 'row-1' is committed"
    )
    assert report.broken[4].found == "nothing leaves in place of the commit's error"
    assert report.broken[6].found == (
        "the block ends as if all were well, and nothing was written"
    )


@contextmanager
def never_closing(engine: Engine) -> Iterator[Session]:
    session = KEPT[0] = Session(engine)
    try:
        yield session
    except BaseException:
        session.rollback()
        raise
    session.commit()


@leaking
def test_session_that_stays_open_is_found(engine: Engine) -> None:
    """A session that was not closed holds what it has loaded."""
    report = verify(lambda: never_closing(engine))
    KEPT.clear()

    assert report.broken[3].found == (
        "the session is not closed: it holds what it has loaded"
    )


@contextmanager
def logging_all(engine: Engine) -> Iterator[Session]:
    try:
        with session_scope(engine) as session:
            yield session
    except SQLAlchemyError:
        logging.getLogger("service").exception("failed")
        raise


def test_parameters_in_the_log_are_found(engine: Engine) -> None:
    """A factory that logs SQLAlchemy's errors logs what was to be stored."""
    report = verify(lambda: logging_all(engine))

    assert report.broken[15].found == (
        "the log or a note holds the parameters of a statement"
    )


@contextmanager
def relinking(engine: Engine) -> Iterator[Session]:
    try:
        with session_scope(engine) as session:
            yield session
    except Exception as error:
        raise error from LookupError()


def test_another_cause_is_found(engine: Engine) -> None:
    """An exception that leaves with a cause that it had not."""
    report = verify(lambda: relinking(engine))

    assert report.broken[1].found == "its cause or its context is another"


def dependency(engine: Engine) -> Callable[[], Iterator[Session]]:
    """Return a dependency that is right but for the session it leaves usable."""

    def get_session() -> Iterator[Session]:
        with session_scope(engine) as session:
            yield session

    return get_session


@leaking
def test_generator_around_a_scope(engine: Engine) -> None:
    """A scope in a generator is answered too early, and there are two of them."""
    report = verify(dependency(engine))

    assert {10, 12} <= report.broken.keys() <= {3, 7, 9, 10, 12}
    assert report.broken[10].found == "it is answered, then committed"
    assert report.broken[12].found == "the request has two sessions"
    assert report.broken[12].example == (
        "def endpoint(one = Depends(get_session), "
        "other = Depends(get_session, use_cache=False)):\n"
        "    pass"
    )


class Forgetful:
    """A dependency as a callable object, which ends nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __call__(self) -> Iterator[Session]:
        session = KEPT[len(KEPT)] = Session(self._engine)
        yield session


@leaking
def test_dependency_that_ends_nothing(make_engine: Callable[..., Engine]) -> None:
    """Each promise about what is left behind is broken where nothing is ended."""
    engine = make_engine(poolclass=NullPool, connect_args={"timeout": 0.1})
    report = verify(Forgetful(engine))
    KEPT.clear()

    found = {number: finding.found for number, finding in report.broken.items()}
    assert found[3] == "the session is in a transaction"
    assert found[10] == "it is answered while the transaction is open"
    assert found[11] == "the request leaves a connection out, or a row"
    assert found[13] == "its connection is not back in the pool"
    assert found[14] == "100 connections are not back in the pool"


@leaking
def test_statuses_of_requests_at_once(engine: Engine) -> None:
    """A dependency that answers what the endpoint has raised."""

    def answering() -> Iterator[Session]:
        try:
            with session_scope(engine) as session:
                yield session
        except HTTPException as error:
            raise HTTPException(418) from error

    report = verify(answering)

    assert report.broken[11].found == "the client is told 418"
    assert report.broken[14].found == "100 clients are told 418"


@leaking
def test_async_factories_by_hand(async_engine: AsyncEngine) -> None:
    """Async sessions are held against the same."""

    @asynccontextmanager
    async def by_hand() -> AsyncIterator[AsyncSession]:
        session = AsyncSession(async_engine)
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise
        finally:
            await session.close()

    assert {1, 5, 7} <= broken(by_hand)
    assert {5, 6, 7} <= broken(async_sessionmaker(async_engine))


class Answering:
    """Has other exceptions leave than those of the database."""

    def __init__(self, engine: Engine) -> None:
        self._scope = session_scope(engine)

    def __enter__(self) -> Session:
        session: Session = self._scope.__enter__()
        return session

    def __exit__(self, *exc_info: Any) -> None:
        try:
            self._scope.__exit__(*exc_info)
        except SQLAlchemyError as error:
            raise LookupError from error
        if isinstance(exc_info[1], SQLAlchemyError):
            raise LookupError from exc_info[1]


def test_other_exceptions_than_the_database_s_are_found(engine: Engine) -> None:
    """What the database refuses, in the block or at its end, leaves as it is."""
    report = verify(lambda: Answering(engine))

    assert report.broken[1].found == "LookupError leaves in its place"
    assert report.broken[1].example == (
        'session.add_all([Row(text="row-1"), Row(text="row-1")])\nsession.flush()'
    )
    assert report.broken[4].found == "LookupError leaves in place of the commit's error"
    assert report.broken[4].example == (
        'session.add_all([Row(text="row-1"), Row(text="row-1")])'
    )


class Committing(Swallowing):
    """Commits before a refusal leaves, as to keep a record of it."""

    def __exit__(self, exc_type: object, *rest: object) -> bool:
        if exc_type in (None, HTTPException):
            self.session.commit()
        self.session.close()
        return False


@leaking
def test_commit_beside_a_refusal_is_found(engine: Engine) -> None:
    """An HTTPException is among the exceptions of a block, where FastAPI is there."""
    report = verify(lambda: Committing(engine))

    assert report.broken[2].example == (
        'session.add(Row(text="row-1"))\nsession.flush()\nraise error\n'
        "# error is HTTPException(400)"
    )


def test_interrupt_of_the_check_itself_is_raised(engine: Engine) -> None:
    """A Ctrl-C while `verify` runs is nobody's fault, and ends it."""
    interrupt = KeyboardInterrupt()
    done: list[str] = []

    def interrupt_at_the_end(*args: object) -> None:
        done.append("commit")
        if len(done) == 5:
            raise interrupt

    event.listen(engine, "commit", interrupt_at_the_end)

    with pytest.raises(KeyboardInterrupt) as caught:
        verify(lambda: session_scope(engine))

    assert caught.value is interrupt
    assert {"note", "reply"} == set(inspect(engine).get_table_names())


def test_engine_of_somebody_else_is_not_watched(
    engine: Engine, make_engine: Callable[..., Engine]
) -> None:
    """A connection of another engine that is out meanwhile is no leak."""
    other = make_engine()
    with ExitStack() as held:

        @contextmanager
        def factory() -> Iterator[Session]:
            held.close()
            held.enter_context(other.connect())
            with session_scope(engine) as session:
                yield session

        assert 3 not in broken(factory)


def test_savepoint_is_refused(engine: Engine) -> None:
    """A SAVEPOINT in somebody's session is no session of one's own."""
    with (
        session_scope(engine) as outer,
        pytest.raises(InvalidArgument, match="given a SAVEPOINT in somebody's session"),
    ):
        verify(lambda: session_scope(outer))


def test_engine_for_each_session_is_refused(
    make_engine: Callable[..., Engine],
) -> None:
    """Faults and rows are of one engine."""
    with pytest.raises(InvalidArgument, match="bound to one engine, and then to"):
        verify(lambda: session_scope(make_engine()))


def test_database_that_is_not_written_to_is_refused(
    tmp_path: Path, make_engine: Callable[..., Engine]
) -> None:
    """Where the table cannot be made, that is said."""
    make_engine()
    engine = create_engine(f"sqlite:///file:{tmp_path}/test.db?mode=ro&uri=true")

    with pytest.raises(InvalidArgument, match=r"verify\(\) could not make its table: "):
        verify(lambda: session_scope(engine))

    engine.dispose()


@pytest.mark.anyio
async def test_running_loop_is_refused(async_engine: AsyncEngine) -> None:
    """Where a loop is running, the caller is told to leave it."""
    with pytest.raises(ScopeMisuse) as caught:
        verify(async_session_dependency(async_engine))

    assert str(caught.value) == (
        "verify() was called where an event loop is running, and it needs one of its "
        "own. Call it from a test that is not async."
    )


def test_dependency_that_needs_a_parameter_is_refused(engine: Engine) -> None:
    """What the client was told is in the error."""

    def of_tenant(tenant: str) -> Iterator[Session]:
        with session_scope(engine) as session:
            yield session

    with pytest.raises(InvalidArgument, match="no session to work on: the client is "):
        verify(of_tenant)


@leaking
def test_app_of_routers(engine: Engine) -> None:
    """Included routers and mounted apps are looked through, and classes resolved."""
    get_session = session_dependency(engine)

    class Repository:
        def __init__(self, session: Session = Depends(get_session)) -> None:
            pass

    router = APIRouter(prefix="/api")

    @router.get("/users")
    def users(repository: Annotated[Repository, Depends()]) -> None: ...

    app = FastAPI()
    app.mount("/below", notes_app(dependency(engine)))
    app.include_router(router)
    others = {1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 14, 15}

    assert broken(app, route="/api/users", ignore=others) == set()
    assert broken(app, route="/below/faulty", ignore=others) == {10, 12}


def notes_app(get_session: Any) -> FastAPI:
    app = FastAPI()

    def current_user(session: Annotated[Session, Depends(get_session)]) -> str:
        return "somebody"

    @app.get("/")
    def home() -> None: ...

    @app.get("/notes")
    def notes(user: Annotated[str, Depends(current_user)]) -> None: ...

    @app.get("/faulty")
    def faulty(session: Session = Depends(get_session, scope="request")) -> None: ...

    return app


@leaking
def test_app_is_held_by_the_session_of_a_route(engine: Engine) -> None:
    """The session is found below other dependencies, and taken as it is declared."""
    app = notes_app(dependency(engine))

    of_faulty = verify(app, route="/faulty")
    of_first = verify(notes_app(session_dependency(engine)))

    assert 10 in of_faulty.broken
    of_first.raise_for_broken()
    whence = "Its session is that of the route {}, from the function get_session()."
    assert [whence.format("/faulty")] == of_faulty.notes
    assert [whence.format("/notes")] == of_first.notes
    assert whence.format("/notes") in str(of_first)


def test_path_of_several_endpoints_is_looked_through(engine: Engine) -> None:
    """Where one path is of several methods, the one that has a session is found."""
    app = FastAPI()

    @app.post("/notes")
    def add(session: Session = Depends(session_dependency(engine))) -> None: ...

    @app.get("/notes")
    def home() -> None: ...

    verify(app, route="/notes", ignore={9, 14}).raise_for_broken()


def test_app_lives_while_it_is_held(engine: Engine) -> None:
    """The app's lifespan, state, overrides, middleware and handlers are in place."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        app.state.engine = engine
        seen.append("started")
        yield {"told": "by the lifespan"}
        seen.append("stopped")

    async def middleware(request: Request, call_next: Any) -> Any:
        assert request.state.told == "by the lifespan"
        seen.append("called")
        return await call_next(request)

    app = notes_app(unconfigured)
    app.router.lifespan_context = lifespan
    app.middleware("http")(middleware)
    app.dependency_overrides[unconfigured] = session_dependency(
        lambda: app.state.engine
    )

    verify(app, ignore={9}).raise_for_broken()

    assert seen[0] == "started"
    assert "called" in seen
    assert seen[-1] == "stopped"


def test_stream_is_served_to_its_end(engine: Engine) -> None:
    """A client that has sent all stays, and the app waits for its leaving in vain."""

    async def stream(request: Request, call_next: Any) -> StreamingResponse:
        answer = await call_next(request)
        return StreamingResponse(answer.body_iterator, answer.status_code)

    app = notes_app(session_dependency(engine))
    app.middleware("http")(stream)

    verify(app, ignore={9}).raise_for_broken()


async def conflict(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("There is one already.", 409)


def test_error_that_the_app_answers_is_heard(engine: Engine) -> None:
    """An exception handler of the app answers a failed commit, and nothing leaves."""
    app = notes_app(session_dependency(engine))
    for error in (SQLAlchemyError, ValueError):
        app.add_exception_handler(error, conflict)

    verify(app, ignore={9}).raise_for_broken()


@leaking
def test_error_in_place_of_another_is_found_if_it_is_answered(factories: Any) -> None:
    """A rollback that fails hides the block's exception, answered or not."""
    app = notes_app(factories.by_hand)
    app.add_exception_handler(SQLAlchemyError, conflict)

    report = verify(app, route="/notes", ignore={9})

    assert {1, 5} & report.broken.keys() == {5}
    assert report.broken[5].found == "nothing leaves in its place"


NOTED: ContextVar[str] = ContextVar("NOTED", default="nothing")


class Noting:
    """A middleware that leaves behind what it has noted."""

    def __init__(self, app: Any, seen: set[str]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._seen.add(NOTED.get())
        NOTED.set("a session")
        await self._app(scope, receive, send)


def test_each_request_has_a_context_of_its_own(engine: Engine) -> None:
    """A context variable that one sets is not set for the next, as on a server."""
    seen: set[str] = set()
    app = notes_app(session_dependency(engine))
    app.add_middleware(Noting, seen=seen)

    verify(app, ignore={9})

    assert seen == {"nothing"}
    assert NOTED.get() == "nothing"


def unconfigured() -> Session:
    raise NotImplementedError


def test_lifespan_that_fails_is_raised() -> None:
    """An app that cannot start says why."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise LookupError("no settings")
        yield

    app = notes_app(unconfigured)
    app.router.lifespan_context = lifespan

    with pytest.raises(LookupError, match="no settings"):
        verify(app)


def test_report_is_raised_when_it_is_asked(engine: Engine) -> None:
    """One line of a suite fails with the table, and an example for each promise."""
    report = verify(sessionmaker(engine), ignore={1, 5})

    with pytest.raises(ContractBroken) as caught:
        report.raise_for_broken()

    assert (
        str(caught.value)
        == """\
2 promises are broken

 1  The exception that was raised leaves, as it is        -
 2  All of the work is committed, or none                 kept
 3  The session is closed, its connection back and clean  kept
 4  A commit that fails is raised                         kept
 5  A cleanup that fails replaces no exception            -
 6  A failed flush that was caught is not passed over     BROKEN
 7  After its end the session refuses work                BROKEN
 9  A cancelled exit runs to its end                      -
10  The transaction ends before the answer begins         -
11  A 400 is a 400, and a 422 a 422                       -
12  A request has one session                             -
13  Endpoints and WebSockets of each kind are served      -
14  Requests that fail all at once are all answered       -
15  Log and notes hold no parameters                      kept

 6  the block ends as if all were well, and nothing was written:
        session.add_all([Row(text="row-1"), Row(text="row-1")])
        with suppress(IntegrityError):
            session.flush()
 7  the session takes up work again, and a connection:
        pass
"""
    )


def test_nothing_asked_is_refused(engine: Engine) -> None:
    """A check that asks for nothing has nothing to say."""
    with pytest.raises(InvalidArgument, match="told to ignore all that it could ask"):
        verify(lambda: session_scope(engine), ignore=UNIT)


def test_nothing_is_left_of_the_check(engine: Engine) -> None:
    """Its table is dropped, and the process is as it was."""
    handlers, hook = [*logging.getLogger().handlers], sys.unraisablehook

    verify(sessionmaker(engine))

    assert {"note", "reply"} == set(inspect(engine).get_table_names())
    assert handlers == logging.getLogger().handlers
    assert sys.unraisablehook is hook
    assert gc.isenabled()


def in_memory() -> Engine:
    return create_engine("sqlite://", poolclass=StaticPool)


class Example:
    pass


@pytest.mark.parametrize(
    "factory, options, told",
    [
        (
            Example(),
            {},
            (
                "verify() got an object of type Example. Pass a sessionmaker, a "
                "callable that returns a context manager (as in lambda: "
                "session_scope(engine)), a dependency written for FastAPI, or an app."
            ),
        ),
        (
            Example,
            {},
            "verify() got the class Example. Pass a sessionmaker",
        ),
        (
            lambda: Example(),
            {},
            (
                "verify() got the function <lambda>(), which returned an object of "
                "type Example. Pass a sessionmaker, a callable"
            ),
        ),
        (
            sessionmaker(in_memory()),
            {},
            (
                "verify() got a session on a StaticPool, whose one connection shows "
                "nothing of what others would see. Use a database file, or a server."
            ),
        ),
        (
            sessionmaker(),
            {},
            (
                "verify() was given no session to work on: "
                "UnboundExecutionError. Pass what gives a Session or an AsyncSession "
                "that is bound to an engine, and needs nothing of the request."
            ),
        ),
        (
            sessionmaker(in_memory()),
            {"route": "/notes"},
            (
                "verify() got route='/notes' beside an object of type sessionmaker. A "
                "route is of an app: pass the FastAPI app, or leave route out."
            ),
        ),
        (
            sessionmaker(in_memory()),
            {"ignore": {*range(1, 8), *range(9, 16)}},
            "verify() got a session on a StaticPool",
        ),
        (
            lambda: nullcontext(Example()),
            {},
            "verify() was given no session to work on: TypeError. Pass what gives a",
        ),
        (
            sessionmaker(in_memory()),
            {"ignore": {8}},
            "verify() got ignore={8}. Pass numbers of promises that it asks for: 1, 2,",
        ),
        (
            notes_app(unconfigured),
            {"route": "/"},
            (
                "verify() found no parameter annotated as a session at the route '/' "
                "of the app, which has: /, /notes, /faulty. Name a route whose "
                "endpoint has one, or pass the dependency itself."
            ),
        ),
        (
            FastAPI(),
            {},
            (
                "verify() found no parameter annotated as a session at any route of "
                "the app, which has: no route."
            ),
        ),
    ],
)
def test_what_cannot_be_held_is_refused(
    factory: Any, options: dict[str, Any], told: str
) -> None:
    """What is no session factory is refused, with what to pass instead."""
    with pytest.raises(InvalidArgument) as caught:
        verify(factory, **options)

    assert str(caught.value).startswith(told)
