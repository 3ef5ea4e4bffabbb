"""How many sessions may be out at once, so that none waits for another's thread.

A session waits for a connection in a worker thread or in the event loop's own, and who
holds the connection may need that very thread to give it back. So the request waits
before it has its session, on the loop, where it is in nobody's way.
"""

from asyncio import AbstractEventLoop, Future, get_running_loop
from typing import Any, Literal, TypeAlias, cast
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, QueuePool
from sqlalchemy.orm import Session, sessionmaker

from ._binds import describe
from .errors import InvalidArgument

MaxConcurrency: TypeAlias = int | Literal["pool"] | None
# Who waits, for which slot, in the order of their coming.
Queue: TypeAlias = "dict[Holder, tuple[Limiter, Limit, Future[None]]]"


class Limit:
    """The slots that there are for the sessions of one engine, and who waits for one.

    Who waits here holds no slot of any limit, so all that do are alike: where the
    first has to wait, the others have to.
    """

    __slots__ = ("admission", "free", "size", "waiting")

    def __init__(self, admission: "Admission", size: int) -> None:
        self.admission = admission
        self.size = size
        self.free = size
        self.waiting: Queue = {}


class Holder:
    """The sessions that one request holds, and the slots that these take."""

    __slots__ = ("sessions", "slots")

    def __init__(self) -> None:
        self.sessions: dict[Any, Any] = {}
        self.slots: dict[Limiter, Limit] = {}

    def may_still_need(self, limit: Limit, needing: "set[Limiter]") -> int:
        """Return how many slots more it may ask for, of those that there are at all."""
        left = limit.size - self._held(limit)
        return min(left, len(needing - self.slots.keys()))

    def holds_all(self, limit: Limit) -> bool:
        """Tell whether it would wait for itself, if it waited for another slot."""
        return self._held(limit) >= limit.size

    def _held(self, limit: Limit) -> int:
        return list(self.slots.values()).count(limit)


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
            _limiters.add(self)

    async def acquire(self, holder: Holder, session: Session) -> None:
        """Wait for a slot for the session, if it needs one."""
        if self._max_concurrency is None:
            return
        limit = _admission_of_loop().limit_for(self, session)
        if limit is not None and not limit.admission.take(holder, self, limit):
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
        if not isinstance(bind, Engine):
            return None
        # What an engine keeps through dispose(), and shares with those that its
        # execution_options() returns.
        owner = bind.dialect
        if not self._used or self._current() is None:
            self._used = True
            self._owners.add(owner)
        return owner

    def size(self, session: Session) -> int | None:
        """Return how many slots there are, or ``None`` for no limit."""
        if isinstance(self._max_concurrency, int):
            return self._max_concurrency
        pool = cast(Engine, session.bind).pool
        # Private in SQLAlchemy, which tells it nowhere else.
        overflow: int = getattr(pool, "_max_overflow", -1)
        if isinstance(pool, QueuePool) and overflow >= 0:
            return pool.size() + overflow
        return None

    def may_need(self, owner: object) -> bool:
        """Tell whether a session of this dependency might need a slot of `owner`."""
        if self._max_concurrency != "pool":
            return owner is self
        bind = self._current()
        if bind is not None:
            return owner is bind.dialect
        # A callable may return any engine, and most return always the same.
        if self._used:
            return owner in self._owners
        return not isinstance(owner, Limiter)

    def _current(self) -> Engine | Connection | None:
        """Return what the sessions are bound to, where it is known before they are."""
        bind = self._bind
        if isinstance(bind, sessionmaker):
            bind = bind.kw.get("bind")
        return bind if isinstance(bind, (Engine, Connection)) else None


class Admission:
    """The requests of one event loop that hold slots, and those that wait for them."""

    def __init__(self) -> None:
        self._limits: WeakKeyDictionary[object, Limit] = WeakKeyDictionary()
        self._holders: set[Holder] = set()
        # Those that hold a slot, and wait for another.
        self._waiting: Queue = {}

    def limit_for(self, limiter: Limiter, session: Session) -> Limit | None:
        owner = limiter.owner(session)
        if owner is None:
            return None
        limit = self._limits.get(owner)
        if limit is None and (size := limiter.size(session)) is not None:
            limit = self._limits[owner] = Limit(self, size)
        return limit

    async def wait(self, holder: Holder, limiter: Limiter, limit: Limit) -> None:
        """Wait for a slot behind those that wait already."""
        queue = self._waiting if holder.slots else limit.waiting
        turn = get_running_loop().create_future()
        queue[holder] = limiter, limit, turn
        if queue is self._waiting:
            self._admit_holders()
        try:
            await turn
        finally:
            queue.pop(holder, None)

    def release(self, holder: Holder, limiter: Limiter) -> None:
        """Give a slot back, and admit who can go on now."""
        self._give_back(holder, limiter)
        self._admit_holders()
        for limit in self._limits.values():
            while limit.waiting and self._admit(
                limit.waiting, next(iter(limit.waiting))
            ):
                pass

    def _admit_holders(self) -> None:
        for holder in list(self._waiting):
            self._admit(self._waiting, holder)

    def _admit(self, queue: Queue, holder: Holder) -> bool:
        limiter, limit, turn = queue[holder]
        # Done where it was cancelled, and is about to leave the queue.
        if not turn.done():
            if not self.take(holder, limiter, limit):
                return False
            turn.set_result(None)
        del queue[holder]
        return True

    def take(self, holder: Holder, limiter: Limiter, limit: Limit) -> bool:
        """Take a slot, if one is free and can be spared."""
        # Who would wait for ever goes beyond the limit. What comes of that is a matter
        # of the pool, which raises in its own time.
        beyond = bool(holder.slots) and (
            holder.holds_all(limit)
            or (holder in self._waiting and self._is_stuck(limit))
        )
        if limit.free <= 0 and not beyond:
            return False
        holder.slots[limiter] = limit
        limit.free -= 1
        self._holders.add(holder)
        if beyond or len(_limiters) == 1 or self._all_can_end():
            return True
        self._give_back(holder, limiter)
        return False

    def _give_back(self, holder: Holder, limiter: Limiter) -> None:
        holder.slots.pop(limiter).free += 1
        if not holder.slots:
            self._holders.discard(holder)

    def _is_stuck(self, limit: Limit) -> bool:
        """Tell whether those that hold slots of the limit wait for ever.

        They may where a dependency was made, or returned another engine than before,
        when they had their sessions already.
        """
        return not self._all_can_end() and all(
            holder in self._waiting
            for holder in self._holders
            if limit in holder.slots.values()
        )

    def _all_can_end(self) -> bool:
        """Tell whether all requests can have what they may ask for, one after another.

        A request does not say beforehand for how many sessions it will ask. Where each
        has one and waits for another, they wait for ever.
        """
        needing: dict[Limit, set[Limiter]] = {}
        for owner, limit in self._limits.items():
            limiters = {each for each in _limiters if each.may_need(owner)}
            if limit.free < len(limiters):
                needing[limit] = limiters
        free = {limit: limit.free for limit in needing}
        left = set(self._holders)
        while left:
            ending = {
                holder
                for holder in left
                if all(
                    holder.may_still_need(limit, needing[limit]) <= free[limit]
                    for limit in needing
                )
            }
            if not ending:
                return False
            for holder in ending:
                for limit in holder.slots.values():
                    if limit in free:
                        free[limit] += 1
            left -= ending
        return True


_limiters: WeakSet[Limiter] = WeakSet()
_admissions: WeakKeyDictionary[AbstractEventLoop, Admission] = WeakKeyDictionary()


def _admission_of_loop() -> Admission:
    loop = get_running_loop()
    admission = _admissions.get(loop)
    if admission is None:
        admission = _admissions[loop] = Admission()
    return admission
