"""How many sessions may be out at once, so that none waits for another's thread.

A session waits for a connection in a worker thread or in the event loop's own, and who
holds the connection may need that very thread to give it back. So the request waits
before it has its session, on the loop, where it is in nobody's way.
"""

from typing import Any, Literal, TypeAlias
from weakref import WeakSet

from sqlalchemy import Connection, Engine, QueuePool
from sqlalchemy.orm import Session, sessionmaker

from ._admission import Holder, admission_of_loop, register
from ._binds import describe
from .errors import InvalidArgument

MaxConcurrency: TypeAlias = int | Literal["pool"] | None
# What is SQLAlchemy's own, for a pool without a timeout.
_PATIENCE = 30.0


class Limiter:
    """Has the requests that ask one dependency for a session wait for a slot."""

    __slots__ = ("__weakref__", "_bind", "_max_concurrency", "_owners", "_used")

    def __init__(self, call: str, bind: Any, max_concurrency: MaxConcurrency) -> None:
        # Not isinstance(): a bool is an int, too.
        number = max_concurrency if type(max_concurrency) is int else None
        if max_concurrency not in ("pool", None) and (number is None or number < 1):
            given = describe(max_concurrency) if number is None else number
            raise InvalidArgument(
                f"{call}() got {given} as max_concurrency. Pass how many sessions may "
                "be out at once, 1 or more; or None for no limit; or 'pool' for as "
                "many as the engine's pool can give."
            )
        self._bind = bind
        self._max_concurrency = max_concurrency
        self._owners: WeakSet[object] = WeakSet()
        self._used = False
        if max_concurrency is not None:
            register(self)

    async def acquire(self, holder: Holder, session: Session) -> None:
        """Wait for a slot for the session, if it needs one."""
        if self._max_concurrency is None:
            return
        limit = admission_of_loop().limit_for(self, session)
        if limit is not None and not limit.admission.enter(holder, self, limit):
            await limit.admission.wait(holder, self, limit)

    def release(self, holder: Holder) -> None:
        """Give the slot back, if one was taken."""
        limit = holder.slots.get(self)
        if limit is not None:
            limit.admission.release(holder, self)

    def owner(self, session: Session) -> object:
        """Return whose slots the session needs, if any's."""
        if self._max_concurrency != "pool":
            return self
        bind = session.bind
        # What an engine keeps through dispose(), and shares with those that its
        # execution_options() returns.
        owner = bind.dialect if isinstance(bind, Engine) else None
        if not self._used or (owner is not None and self._current() is not bind):
            self._used = True
            if owner is not None:
                self._owners.add(owner)
        return owner

    def size(self, session: Session) -> tuple[int | None, float]:
        """Return how many slots there are, or ``None`` for no limit; and a patience."""
        pool = session.bind.engine.pool if session.bind is not None else None
        patience = pool.timeout() if isinstance(pool, QueuePool) else _PATIENCE
        if isinstance(self._max_concurrency, int):
            return self._max_concurrency, patience
        # Private in SQLAlchemy, which tells it nowhere else.
        overflow: int = getattr(pool, "_max_overflow", -1)
        if isinstance(pool, QueuePool) and overflow >= 0:
            return pool.size() + overflow, patience
        return None, patience

    def may_need(self, owner: object) -> bool:
        """Tell whether a session of this dependency might need a slot of `owner`."""
        if self._max_concurrency != "pool":
            return owner is self
        bind = self._current()
        if bind is None or isinstance(bind, Connection):
            return False
        if isinstance(bind, Engine):
            return owner is bind.dialect
        # A callable may return any engine, and most return always the same.
        if self._used:
            return owner in self._owners
        return not isinstance(owner, Limiter)

    def _current(self) -> Any:
        """Return what the sessions are bound to, or a callable that will tell."""
        bind = self._bind
        return bind.kw.get("bind") if isinstance(bind, sessionmaker) else bind
