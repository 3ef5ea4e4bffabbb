"""Which request goes next, of those of one event loop that wait for a slot."""

from asyncio import AbstractEventLoop, Future, TimerHandle, get_running_loop
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary, ref

from sqlalchemy.orm import Session

from ._banker import Stock, all_can_end, held

if TYPE_CHECKING:
    from ._limits import Limiter

# Who waits, in the order of their coming.
Queue: TypeAlias = "dict[Future[None], Wait]"
Slots: TypeAlias = "dict[Limiter, Limit]"


class Limit:
    """The slots there are for the sessions of one engine, and who waits for one."""

    __slots__ = ("admission", "free", "most", "moved", "patience", "size", "waiting")

    def __init__(self, admission: "Admission", size: int, patience: float) -> None:
        self.admission = admission
        self.size = size
        self.free = size
        # How many slots a request takes at most, as far as has been seen.
        self.most = 2
        # When a slot was last taken or given back, and for how many seconds without
        # either a request waits.
        self.moved = 0.0
        self.patience = patience
        # Those that hold no slot of any limit yet.
        self.waiting: Queue = {}


class Holder:
    """The sessions that one request holds, and the slots that these take."""

    __slots__ = ("error", "opened", "sessions", "slots")

    def __init__(self, opened: Callable[[Session], None] | None = None) -> None:
        self.sessions: dict[Any, Any] = {}
        self.slots: Slots = {}
        # For who runs the request again: is told of each session, and what left one.
        self.opened = opened
        self.error: BaseException | None = None


class Wait(NamedTuple):
    """A request that waits for a slot."""

    number: int
    holder: Holder
    limiter: "Limiter"
    limit: Limit


class Admission:
    """The requests of one event loop that hold slots, and those that wait for them."""

    def __init__(self) -> None:
        self._limits: WeakKeyDictionary[object, Limit] = WeakKeyDictionary()
        self._holders: set[Holder] = set()
        # Those that hold a slot, and wait for another.
        self._waiting: Queue = {}
        # How many are in a queue, or have just left it: mostly none, and nothing has to
        # be looked through then.
        self._waiters = 0
        self._numbers = count()

    def limit_for(self, limiter: "Limiter", session: Session) -> Limit | None:
        owner = limiter.owner(session)
        if owner is None:
            return None
        limit = self._limits.get(owner)
        if limit is None:
            size, patience = limiter.size(session)
            if size is not None:
                limit = self._limits[owner] = Limit(self, size, patience)
        return limit

    def enter(self, holder: Holder, limiter: "Limiter", limit: Limit) -> bool:
        """Take a slot where nobody has to go first; tell whether it was taken."""
        if not holder.slots and self._oldest() is not None:
            return False
        return self._take(holder, limiter, limit)

    async def wait(self, holder: Holder, limiter: "Limiter", limit: Limit) -> None:
        """Wait for a slot, for as long as others have theirs in turn."""
        loop = get_running_loop()
        queue = self._waiting if holder.slots else limit.waiting
        turn = loop.create_future()
        queue[turn] = Wait(next(self._numbers), holder, limiter, limit)
        timer: TimerHandle

        def lose_patience() -> None:
            nonlocal timer
            left = limit.moved + limit.patience - loop.time()
            if left > 0:
                timer = loop.call_later(left, lose_patience)
            elif not turn.done():
                # Nobody gives a slot back, or not for this one. It is a matter of the
                # pool now, which has a connection or raises.
                del queue[turn]
                self._give(holder, limiter, limit)
                turn.set_result(None)

        timer = loop.call_later(limit.patience, lose_patience)
        self._waiters += 1
        try:
            # It may be the last that could have gone on.
            self._admit()
            await turn
        finally:
            self._waiters -= 1
            timer.cancel()
            queue.pop(turn, None)
            self._admit()

    def release(self, holder: Holder, limiter: "Limiter") -> None:
        """Give a slot back, and admit who can go on now."""
        limit = holder.slots.pop(limiter)
        limit.free += 1
        limit.moved = get_running_loop().time()
        if not holder.slots:
            self._holders.discard(holder)
        self._admit()

    def _admit(self) -> None:
        for turn in list(self._waiting):
            self._admit_one(self._waiting, turn)
        while (oldest := self._oldest()) is not None:
            if not self._admit_one(*oldest):
                break

    def _oldest(self) -> "tuple[Queue, Future[None]] | None":
        """Return who waits for longest, of those for whom a slot is free.

        No younger one goes before it, on whichever limit: a slot of another may be what
        is to be spared for it.
        """
        if not self._waiters:
            return None
        queues = [
            limit.waiting
            for limit in self._limits.values()
            if limit.waiting and limit.free > 0
        ]
        if not queues:
            return None
        firsts = [(queue, next(iter(queue))) for queue in queues]
        return min(firsts, key=lambda first: first[0][first[1]].number)

    def _admit_one(self, queue: Queue, turn: "Future[None]") -> bool:
        wait = queue[turn]
        # Done where it was cancelled, and is about to leave the queue.
        if not turn.done():
            if not self._take(wait.holder, wait.limiter, wait.limit):
                return False
            turn.set_result(None)
        del queue[turn]
        return True

    def _take(self, holder: Holder, limiter: "Limiter", limit: Limit) -> bool:
        """Take a slot, if one is free and can be spared, or it would wait for ever."""
        beyond = bool(holder.slots) and (
            held(holder.slots, limit) >= limit.size or self._is_stuck(holder, limit)
        )
        if not beyond:
            if limit.free <= 0:
                return False
            # With as many left as any request takes, it keeps nobody from ending.
            is_scarce = limit.free <= limit.most and len(_limiters) > 1
            if is_scarce and not self._all_can_end(holder, limiter, limit):
                return False
        self._give(holder, limiter, limit)
        return True

    def _give(self, holder: Holder, limiter: "Limiter", limit: Limit) -> None:
        holder.slots[limiter] = limit
        self._holders.add(holder)
        limit.free -= 1
        limit.moved = get_running_loop().time()
        limit.most = max(limit.most, held(holder.slots, limit))

    def _is_stuck(self, holder: Holder, limit: Limit) -> bool:
        """Tell whether all that hold slots of the limit wait, and are to wait for ever.

        They may where requests ask for more sessions than was seen, or a dependency
        returned another engine than before.
        """
        waiting = {wait.holder for wait in self._waiting.values()}
        return (
            holder in waiting
            and all(
                each in waiting
                for each in self._holders
                if limit in each.slots.values()
            )
            and not self._all_can_end()
        )

    def _all_can_end(
        self,
        holder: Holder | None = None,
        limiter: "Limiter | None" = None,
        limit: Limit | None = None,
    ) -> bool:
        """Tell whether all requests can have what they may ask for, one after another.

        Given the three, the answer is for when that slot is taken.
        """
        slots = {each: each.slots for each in self._holders}
        if holder is not None and limiter is not None and limit is not None:
            slots[holder] = holder.slots | {limiter: limit}
        limiters = [each for made in list(_limiters) if (each := made()) is not None]
        stocks = [
            Stock(
                one,
                one.free - (one is limit),
                min(one.most, one.size),
                {each for each in limiters if each.may_need(owner)},
            )
            for owner, one in self._limits.items()
        ]
        return all_can_end(slots.values(), stocks)


# Not a WeakSet: another thread may make a dependency while it is looked through.
_limiters: "list[ref[Limiter]]" = []
_admissions: WeakKeyDictionary[AbstractEventLoop, Admission] = WeakKeyDictionary()


def register(limiter: "Limiter") -> None:
    """Count the dependency among those that a request may ask for a session."""
    _limiters.append(ref(limiter, _limiters.remove))


def admission_of_loop() -> Admission:
    """Return the admission of the running event loop."""
    loop = get_running_loop()
    admission = _admissions.get(loop)
    if admission is None:
        admission = _admissions[loop] = Admission()
    return admission
