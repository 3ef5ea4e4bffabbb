"""What was opened between two moments, on any engine, and is not closed.

Every pool and every session is seen, by listening on SQLAlchemy's classes. The garbage
collector may end a connection at any moment, and so in the midst of what stands here:
nothing takes a lock.
"""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import event
from sqlalchemy.engine import AdaptedConnection, Connection
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import (
    ConnectionPoolEntry,
    Pool,
    PoolProxiedConnection,
    StaticPool,
)

from safesession._report import describe, logger

from ._places import Place, calling_place

# How long to wait for what another thread, such as a server's, is about to close.
PATIENCE = 1.0

_order = count()


@dataclass(eq=False, slots=True)
class Opened:
    """Something that is to be closed, and who opened it."""

    place: Place = field(default_factory=calling_place, init=False)
    thread: threading.Thread = field(
        default_factory=threading.current_thread, init=False
    )
    order: int = field(default_factory=lambda: next(_order), init=False)

    def is_out_of_reach(self) -> bool:
        """Tell whether another thread may be using it."""
        return self.thread is not threading.current_thread() and self.thread.is_alive()


@dataclass(eq=False, slots=True)
class OpenSession(Opened):
    """A session whose transaction has begun, and what it checked out."""

    session: "ref[Session]"
    exempt: bool
    connections: "list[CheckedOut]" = field(default_factory=list["CheckedOut"])

    def is_collected(self) -> bool:
        return self.session() is None

    def is_left(self) -> bool:
        session = self.session()
        if session is not None:
            return session.in_transaction()
        # One that failed to end may have given its connections back all the same.
        connections = self.connections
        return not connections or any(one.is_left() for one in connections)

    def close(self) -> None:
        if any(connection.is_async() for connection in self.connections):
            for connection in self.connections:
                connection.close()
        elif (session := self.session()) is not None:
            session.close()


@dataclass(eq=False, slots=True)
class CheckedOut(Opened):
    """A connection that is out of its pool."""

    proxy: "ref[PoolProxiedConnection]"
    returned: bool = False
    session: OpenSession | None = None

    def is_collected(self) -> bool:
        return self.proxy() is None

    def is_left(self) -> bool:
        proxy = self.proxy()
        return not self.returned if proxy is None else proxy.is_valid

    def is_async(self) -> bool:
        proxy = self.proxy()
        return proxy is not None and isinstance(
            proxy.dbapi_connection, AdaptedConnection
        )

    def close(self) -> None:
        proxy: Any = self.proxy()
        if proxy is None:
            return
        pool = proxy._pool
        if not self.is_async():
            proxy.close()
        # Outside of its event loop it cannot be reset, though some can be terminated.
        # The only connection of a StaticPool may be a database in memory.
        elif pool._dialect.has_terminate and not isinstance(pool, StaticPool):
            proxy.invalidate()


Leak = OpenSession | CheckedOut


class Watch:
    """Sees what is opened, from `start` on, by the threads of this process."""

    def __init__(self) -> None:
        self._watching = False
        self._exempting = 0
        self._exempt_ids: list[range] = []
        self._forget()

    def start(self) -> None:
        """Forget what was opened before."""
        self._forget()
        self._watching = True

    def _forget(self) -> None:
        self._closings: SimpleQueue[None] = SimpleQueue()
        self._sessions: dict[int, OpenSession] = {}
        self._by_entry: dict[ConnectionPoolEntry, list[CheckedOut]] = {}
        self._by_proxy: WeakKeyDictionary[PoolProxiedConnection, CheckedOut] = (
            WeakKeyDictionary()
        )
        self._detached: list[CheckedOut] = []

    def stop(self) -> list[Leak]:
        """Return what was opened since the start and is not closed, the oldest first.

        What another thread has open it may be about to close, so that is waited for.
        """
        deadline = time.monotonic() + PATIENCE
        leaks = self._leaks()
        while any(leak.is_out_of_reach() for leak in leaks):
            try:
                self._closings.get(timeout=max(deadline - time.monotonic(), 0))
            except Empty:
                break
            leaks = self._leaks()
        self._watching = False
        return leaks

    @contextmanager
    def listening(self) -> Generator[None]:
        """Hear of every pool and session, those that exist already too."""
        listeners: list[tuple[Any, str, Any]] = [
            (Pool, "checkout", self._checked_out),
            (Pool, "checkin", self._checked_in),
            (Pool, "close", self._closed),
            (Pool, "detach", self._was_detached),
            (Pool, "close_detached", self._detached_closed),
            (Session, "after_transaction_create", self._began),
            (Session, "after_begin", self._connected),
            (Session, "after_transaction_end", self._ended),
        ]
        for target, name, listener in listeners:
            event.listen(target, name, listener)
        try:
            yield
        finally:
            for target, name, listener in listeners:
                event.remove(target, name, listener)

    @contextmanager
    def exempting(self) -> Generator[None]:
        """Let pass what is opened meanwhile, and later by sessions made meanwhile."""
        first = Session().hash_key
        self._exempting += 1
        try:
            yield
        finally:
            self._exempting -= 1
            self._exempt_ids.append(range(first, Session().hash_key))

    def _leaks(self) -> list[Leak]:
        sessions = [
            session
            for session in list(self._sessions.values())
            if session.is_left() and not session.exempt
        ]
        connections = [
            connection
            for connection in chain(*list(self._by_entry.values()), self._detached)
            if connection.is_left()
            and (connection.session is None or connection.session not in sessions)
            and not (connection.session is not None and connection.session.exempt)
        ]
        return sorted([*sessions, *connections], key=lambda leak: leak.order)

    def _checked_out(
        self, driver: object, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection
    ) -> None:
        # The event comes again where the first connection turned out to be dead.
        if not self._watching or self._exempting or proxy in self._by_proxy:
            return
        # With a callback, which has it cleared before the proxy is finalized.
        opened = CheckedOut(ref(proxy, _ignore))
        self._by_proxy[proxy] = opened
        # A StaticPool hands its only entry out to several at once.
        others = [one for one in self._by_entry.get(entry, ()) if one.is_left()]
        self._by_entry[entry] = [*others, opened]

    def _checked_in(self, driver: object, entry: ConnectionPoolEntry) -> None:
        # A proxy that is gone was not closed: the garbage collector returns the
        # connection. Where an entry is out several times the event comes once, so
        # whichever is alive counts as returned, until it is asked itself.
        for opened in self._by_entry.get(entry, ()):
            if not opened.is_collected():
                opened.returned = True
        self._closings.put(None)

    def _closed(self, driver: object, entry: ConnectionPoolEntry) -> None:
        # By a pool that does not keep it. What closing raises leaves the proxy valid.
        opened = self._by_entry.get(entry, [])
        if len(opened) == 1 and opened[0].returned:
            del self._by_entry[entry]

    def _was_detached(self, driver: object, entry: ConnectionPoolEntry) -> None:
        # By its user; the garbage collector detaches connections too.
        for opened in list(self._by_entry.get(entry, ())):
            proxy = opened.proxy()
            if proxy is not None and proxy.is_detached:
                self._by_entry[entry].remove(opened)
                self._detached.append(opened)
        # The entry is in the pool again, without the event.
        self._checked_in(driver, entry)

    def _detached_closed(self, driver: object) -> None:
        for opened in self._detached:
            proxy = opened.proxy()
            if proxy is not None and proxy.dbapi_connection is driver:
                opened.returned = True
        self._closings.put(None)

    def _began(self, session: Session, transaction: SessionTransaction) -> None:
        if self._watching and transaction.parent is None:
            exempt = bool(self._exempting) or self._is_exempt(session)
            self._sessions[session.hash_key] = OpenSession(ref(session), exempt)

    def _connected(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        opened = self._by_proxy.get(connection.connection)
        if opened is None:
            return
        holder = self._sessions.get(session.hash_key)
        if holder is None and self._is_exempt(session):
            opened.session = OpenSession(ref(session), True)
        # A connection that was there before is not the session's to close.
        elif holder is not None and opened.order > holder.order:
            opened.session = holder
            holder.connections.append(opened)

    def _ended(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._sessions.pop(session.hash_key, None)
            self._closings.put(None)

    def _is_exempt(self, session: Session) -> bool:
        return any(session.hash_key in numbers for numbers in self._exempt_ids)


def close(leaks: list[Leak]) -> None:
    """Close what can be closed from this thread, for the tests that follow."""
    for leak in leaks:
        if leak.is_out_of_reach():
            continue
        try:
            leak.close()
        except Exception as error:
            logger.warning(
                "A leaked connection could not be closed: %s", describe(error)
            )


def _ignore(gone: object) -> None:
    pass
