"""Have a unit of work done in a session of somebody's, and see what it leaves."""

import gc
import logging
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any, Self
from weakref import ref

from sqlalchemy import Connection, Engine, delete, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from safesession._opening import sync_session_of
from safesession._report import describe
from safesession.errors import InvalidArgument

from ._cases import Case, Gone
from ._faults import Faults
from ._harness import Body, Harness
from ._row import Base, Row
from ._seen import Seen

# What is checked out, by the identity of its record, and what was logged.
Watched = tuple[dict[int, "ref[Any]"], list[logging.LogRecord]]

BEFORE, NEXT = "before", "next"


class Trial:
    """Any number of units of work, over one harness and its engine."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.engine = self._find_engine()
        self.observer = Engine(
            self.engine.pool.recreate(), self.engine.dialect, self.engine.url
        ).execution_options(**self.engine.get_execution_options())
        #: Whether a block that ends normally is committed without its saying so.
        self.commits = True

    def _find_engine(self) -> Engine:
        binds: list[Any] = []

        def ask(session: Session) -> None:
            if session.in_nested_transaction():
                raise InvalidArgument(
                    "verify() was given a SAVEPOINT in somebody's session, whose "
                    "outer transaction is for its owner to end. Pass what opens a "
                    "session of its own."
                )
            binds.append(session.get_bind(Row))

        left = self.harness.run(ask)
        if isinstance(left, InvalidArgument):
            raise left
        if not binds:
            why = "nothing was raised" if left is None else type(left).__name__
            answer = getattr(self.harness, "last", None)
            if answer is not None and answer.status is not None:
                why = f"the client is told {answer.status}"
            raise InvalidArgument(
                f"verify() was given no session to work on: {why}. Pass what gives a "
                "Session or an AsyncSession that is bound to an engine, and needs "
                "nothing of the request."
            ) from left
        engine: Engine = binds[0].engine
        if isinstance(engine.pool, (SingletonThreadPool, StaticPool)):
            raise InvalidArgument(
                f"verify() got a session on a {type(engine.pool).__name__}, whose one "
                "connection shows nothing of what others would see. Use a database "
                "file, or a server."
            )
        return engine

    def __enter__(self) -> Self:
        try:
            self.look(Base.metadata.create_all)
        except DBAPIError as error:
            self.harness.dispose(self.observer)
            raise InvalidArgument(
                f"verify() could not make its table: {describe(error)}. Give the "
                "sessions a database that may be written to."
            ) from error
        try:
            self._write_once()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _write_once(self) -> None:
        refused: list[Exception] = []

        def write(session: Session) -> BaseException:
            session.add(Row(text="row-1"))
            try:
                session.flush()
            except Exception as error:
                refused.append(error)
            return Gone()

        with self.from_scratch():
            self.harness.run(write)
        if refused:
            raise InvalidArgument(
                "verify() writes rows, and a session that it was given refused: "
                f"{describe(refused[0]).rstrip('.')}. Pass what gives sessions that "
                "may write; of a factory with read_only=True, the same one without it."
            ) from refused[0]

    def __exit__(self, *exc_info: object) -> None:
        self.harness.dispose(self.engine)
        self.look(Base.metadata.drop_all)
        self.harness.dispose(self.observer)

    def look(self, work: Callable[[Connection], Any]) -> Any:
        """Do something on a connection that is none of the engine's pool."""
        return self.harness.look(self.observer, work)

    def observe(self, case: Case) -> Seen | None:
        """Run the case on a pool that is empty, and one more unit after it.

        Return nothing where the call that was to fail was not made.
        """
        with self.from_scratch() as (out, records):
            seen = Seen(case.failure(self.engine))
            named: Any = {} if seen.failure is None else {case.call: seen.failure}
            with Faults(self.engine, named) as faults:
                tasks = self.harness.tasks()
                seen.left = self.run(self._body_of(case, seen), seen)
                seen.checked_out = len(out)
                # What goes on in the background has its turn.
                stopped = self.harness.settle(tasks)
                if stopped is not None and stopped is not seen.failure:
                    raise stopped
            seen.answered = self.harness.answered
            if len(faults.injected) < len(named):
                return None
            if self.harness.keeps_links:
                seen.links_left = links_of(seen.error)
            self._look_at_session(seen)
            seen.rows = self.rows()
            if not out:
                self._run_next(seen)
            self._use_after(seen)
            told = [logging.Formatter().format(record) for record in records]
            seen.told = "\n".join(told + getattr(seen.left, "__notes__", []))
            # It would keep what has leaked from being collected.
            for error in (seen.left, seen.next_error):
                if error is not None:
                    BaseException.with_traceback(error, None)
        return seen

    def run(self, body: Body, seen: Seen) -> BaseException | None:
        """Run `body`; what is for whoever called `verify` is raised."""
        left = self.harness.run(body)
        of_unit = left is seen.error or left is seen.failure
        if isinstance(left, (KeyboardInterrupt, InvalidArgument)) and not of_unit:
            raise left
        return left

    def rows(self) -> frozenset[str]:
        """Return the rows that are committed, but for the one that was before."""
        return frozenset(self.look(texts)) - {BEFORE}

    @contextmanager
    def from_scratch(self) -> Generator[Watched, None, None]:
        """Empty the pool and the table; collect what is out, and what is logged."""
        out: dict[int, ref[Any]] = {}
        records: list[logging.LogRecord] = []

        def check_out(connection: Any, record: Any, proxy: Any) -> None:
            out[id(record)] = ref(proxy)

        def check_in(connection: Any, record: Any) -> None:
            out.pop(id(record), None)

        tasks = self.harness.tasks()
        self.harness.dispose(self.engine)
        self.look(_forget)
        logging.getLogger().addHandler(handler := _Collecting(records))
        pool = self.engine.pool
        event.listen(pool, "checkout", check_out)
        event.listen(pool, "checkin", check_in)
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield out, records
        finally:
            event.remove(pool, "checkout", check_out)
            event.remove(pool, "checkin", check_in)
            logging.getLogger().removeHandler(handler)
            if collecting:
                gc.enable()
            stopped = self.harness.settle(tasks)
            if out:
                self._let_go(out.values())
            if stopped is not None:
                raise stopped

    def _let_go(self, leaked: "Collection[ref[Any]]") -> None:
        """Have nothing that has leaked lock what follows."""

        def invalidate(connection: Connection) -> None:
            for proxy in filter(None, (found() for found in leaked)):
                if proxy.is_valid:
                    proxy.invalidate()

        # First, as the collector would only say of an async one that it cannot.
        self.look(invalidate)
        gc.collect()

    def _body_of(self, case: Case, seen: Seen) -> Body:
        def body(session: Session) -> BaseException | None:
            if session.get_bind(Row).engine is not self.engine:
                raise InvalidArgument(
                    "verify() was given sessions that are bound to one engine, and "
                    "then to another. Pass what binds them all to the same."
                )
            error = case.error() if case.error is not None else Gone()
            try:
                case.body(session, error)
                if not self.commits and case.writes:
                    session.commit()
            except BaseException as raised:
                seen.error = raised
                seen.links = seen.links_left = links_of(raised)
            # Not raised here, as a coroutine would not carry each of them.
            return seen.error

        return body

    def _look_at_session(self, seen: Seen) -> None:
        session = sync_session_of(self.harness.session)
        seen.in_transaction = session.in_transaction()
        seen.holds_objects = any(True for _ in session)

    def _run_next(self, seen: Seen) -> None:
        def work(session: Session) -> None:
            seen.found = frozenset(session.scalars(select(Row.text))) - {BEFORE}
            session.add(Row(text=NEXT))
            session.commit() if not self.commits else session.flush()

        given = self.harness.session
        seen.next_error = self.run(work, seen)
        self.harness.session = given
        after = self.rows()
        if seen.next_error is None:
            seen.found |= after - {NEXT}

    def _use_after(self, seen: Seen) -> None:
        def use(session: Session) -> None:
            session.execute(text("SELECT 1"))

        given = self.harness.session
        try:
            self.harness.call(use, given)
        except Exception:
            return
        seen.works_after = True
        self.harness.call(Session.close, given)


class _Collecting(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("sqlalchemy."):
            self._records.append(record)


def links_of(error: BaseException | None) -> tuple[Any, ...]:
    if error is None:
        return ()
    return error.__cause__, error.__context__, error.__suppress_context__


def texts(connection: Connection) -> list[str]:
    return list(connection.scalars(select(Row.text)))


def _forget(connection: Connection) -> None:
    connection.execute(delete(Row))
    connection.execute(insert(Row).values(text=BEFORE))
