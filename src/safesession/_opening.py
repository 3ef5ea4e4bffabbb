"""A bind, however given, becomes a fresh session or a clear error."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker
from sqlalchemy.pool import SingletonThreadPool

from ._aborted import WATCHED, watch
from ._begun import begun_by
from ._binds import describe, hint, is_callable_bind
from ._read_only import forbid_writes
from ._report import logger
from ._sqlite import begin_sqlite
from .errors import EngineNotConfigured, InvalidArgument


@dataclass(frozen=True, slots=True)
class Flavour:
    """The classes of SQLAlchemy that go together, sync or async."""

    engine: type[Any]
    connection: type[Any]
    sessionmaker: type[Any]
    session: type[Any]
    session_options: Mapping[str, Any]


SYNC = Flavour(
    engine=Engine,
    connection=Connection,
    sessionmaker=sessionmaker,
    session=Session,
    session_options={"close_resets_only": False},
)


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Opening:
    """How `call` was asked to open sessions."""

    call: str
    flavour: Flavour
    class_: type | None = None
    missing_ok: bool = False
    read_only: bool = False
    crosses_threads: bool = False
    runs_again: bool = False
    _checked: Callable[[], Any] = field(default=_nothing, init=False)

    def on(self, bind: Any) -> Callable[[], Any]:
        """Return a callable that opens a session on `bind`, or returns ``None``.

        Whatever can be refused without calling anything is refused here.
        """
        if self.class_ is not None:
            self._check_class(self.class_)
        open_session = self._on_resolved(bind)
        if open_session is None and is_callable_bind(bind):
            open_session = partial(self._on_callable, bind)
        if open_session is None:
            raise self._wrong_bind(bind)
        if self.read_only:
            return partial(_open_read_only, open_session)
        return open_session

    def refuse_class_beside(self, bind: object) -> None:
        """Raise where `class_` was given beside a bind that settles it."""
        if self.class_ is not None:
            raise InvalidArgument(
                f"{self.call}() got class_ beside {describe(bind)}, which settles the "
                "session class itself. Leave class_ out, or pass the engine as bind."
            )

    def _on_resolved(self, bind: Any) -> Callable[[], Any] | None:
        if bind is None:
            return self._on_nothing
        flavour = self.flavour
        if isinstance(bind, (flavour.engine, flavour.connection)):
            self._check_engine(bind)
            session_class = self.class_ or flavour.session
            return partial(session_class, bind, **flavour.session_options)
        if isinstance(bind, flavour.sessionmaker):
            self.refuse_class_beside(bind)
            self._check_engines(bind)
            return partial(self._on_sessionmaker, bind)
        return None

    def _on_sessionmaker(self, maker: Any) -> Any:
        # Its configure() may have been called since it was given.
        self._check_engines(maker)
        if "close_resets_only" in maker.kw:
            return maker()
        return maker(close_resets_only=False)

    def _on_callable(self, bind: Callable[[], object]) -> Any:
        returned = bind()
        open_session = self._on_resolved(returned)
        if open_session is None:
            raise self._wrong_bind(returned, f" from {describe(bind)}")
        return open_session()

    def _on_nothing(self) -> None:
        if not self.missing_ok:
            remedy = (
                "scope is entered, or pass missing_ok=True to get None for a session"
            )
            if self.runs_again:
                remedy = "work is run"
            raise EngineNotConfigured(
                f"{self.call}() has no engine to open a session on: the bind is None. "
                f"Configure the engine before the {remedy}."
            )
        logger.warning(
            "%s() has no engine to open a session on: the bind is None. "
            "The session is None too, as missing_ok=True asks.",
            self.call,
        )

    def _check_class(self, class_: type) -> None:
        session = self.flavour.session
        if inspect.isclass(class_) and issubclass(class_, session):
            return
        raise InvalidArgument(
            f"{self.call}() got {describe(class_)} as class_. "
            f"Pass {session.__name__} or a class derived from it."
        )

    def _check_engines(self, maker: Any) -> None:
        self._check_engine(maker.kw.get("bind"))
        if binds := maker.kw.get("binds"):
            for bind in binds.values():
                self._check_engine(bind)

    def _check_engine(self, bind: Any) -> None:
        # Most sessions are opened on the engine of the one before.
        if bind is None or bind is self._checked():
            return
        dialect = bind.dialect
        if dialect.name in WATCHED:
            watch(dialect)
        if self.flavour is SYNC and dialect.is_async:
            raise InvalidArgument(
                f"{self.call}() got an engine on the async driver "
                f"{dialect.driver}. Make it with create_async_engine() and pass "
                f"it to async_{self.call}(), or use a sync driver."
            )
        # Sync alone, as the sessions of asyncio stay in the loop's thread.
        if self.crosses_threads and isinstance(bind.engine.pool, SingletonThreadPool):
            raise InvalidArgument(
                f"{self.call}() got an engine whose SingletonThreadPool gives each "
                "thread a connection of its own (with in-memory SQLite, a database of "
                "its own), and a request uses its session from several threads. Pass "
                "poolclass=StaticPool and connect_args={'check_same_thread': False} "
                "to create_engine(), or use a database file."
            )
        self._checked = ref(bind)

    def _wrong_bind(self, bind: object, whence: str = "") -> InvalidArgument:
        flavour = self.flavour
        kinds = [flavour.engine, flavour.connection, flavour.sessionmaker]
        if self.runs_again:
            kinds.remove(flavour.connection)
        *names, last = (kind.__name__ for kind in kinds)
        savepoint = ""
        if self.call.endswith("_scope"):
            session = flavour.session.__name__
            savepoint = f"; or an instance of {session}, for a SAVEPOINT in it"
        return InvalidArgument(
            f"{self.call}() got {describe(bind)}{whence} as its bind. "
            f"{hint(self.call, bind)}Pass an instance of {', '.join(names)} or "
            f"{last}, or a callable that returns one{savepoint}."
        )


def _open_read_only(open_session: Callable[[], Any]) -> Any:
    session = open_session()
    if session is not None:
        forbid_writes(sync_session_of(session))
    return session


def sync_session_of(session: Any) -> Session:
    """Return what does the work of an async session, or the sync session as it is."""
    return getattr(session, "sync_session", session)  # type: ignore[no-any-return]


def begin_savepoint(session: Session, read_only: bool) -> SessionTransaction:
    """Begin a SAVEPOINT in `session`, within a transaction the database knows of."""
    for connection in begun_by(session):
        begin_sqlite(connection)
    event.listen(session, "after_begin", _begin_below_savepoint)
    savepoint = session.begin_nested()
    if read_only:
        forbid_writes(session, savepoint)
    return savepoint


def _begin_below_savepoint(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    if session.in_nested_transaction():
        begin_sqlite(connection)
