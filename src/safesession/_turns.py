"""Sessions that threads take turns with.

The thread of a `def` endpoint goes on when its request is cancelled, with the session
in its hands, while the exit wants to end it. So what a session does and its exit wait
for each other, and after the exit of a cancelled request the session refuses.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache, partial, wraps
from threading import RLock
from typing import Any

from sqlalchemy.orm import Session

from .errors import ScopeMisuse

# Whatever a session does on a connection, it does within one of these,
_CALLS = (
    "bulk_insert_mappings",
    "bulk_save_objects",
    "bulk_update_mappings",
    "close",
    "commit",
    "connection",
    "execute",
    "flush",
    "invalidate",
    "prepare",
    "reset",
    "rollback",
    "scalar",
    "scalars",
)
# or within one of these on what these return.
_BEGINNINGS = ("begin", "begin_nested")
_CALLS_OF_TRANSACTION = ("close", "commit", "prepare", "rollback")

_GUARD = "_safesession_guard"


class Guard:
    """Whose turn it is to use a session, and whether there is another."""

    def __init__(self) -> None:
        # Taken by a `with` statement: no KeyboardInterrupt comes between the lock and
        # its release, and leaves others waiting for ever.
        self.turn = RLock()
        self._ended = False

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the session, or of its transaction, in turn."""
        with self.turn:
            if self._ended:
                raise ScopeMisuse(
                    "The request that this session belongs to was cancelled, and the "
                    "session has ended with it. Work that is to outlive its request "
                    "needs a session_scope() of its own."
                )
            return method(*args, **kwargs)

    @contextmanager
    def if_free(self) -> Generator[bool, None, None]:
        """Take the turn if no other thread has it; tell whether that is so."""
        free = self.turn.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self.turn.release()

    def end(self) -> None:
        """Refuse whoever asks for another turn."""
        self._ended = True


def open_guarded(open_session: Callable[[], Session | None]) -> Session | None:
    """Open a session whose calls wait for each other."""
    session = open_session()
    if session is not None:
        cls: Any = type(session)
        session.__class__ = _guarded_class(cls)
        vars(session)[_GUARD] = Guard()
    return session


def guard_of(session: Session) -> Guard:
    """Return the guard of a session that `open_guarded` has opened."""
    guard: Guard = vars(session)[_GUARD]
    return guard


# Bounded, as a service may make a sessionmaker, and so a class, for each request.
@lru_cache(maxsize=128)
def _guarded_class(cls: type[Session]) -> type[Session]:
    members: dict[str, Any] = {"__module__": cls.__module__}
    for name in _CALLS:
        members[name] = _in_turn(getattr(cls, name))
    for name in _BEGINNINGS:
        members[name] = _in_turn(_guarding_transaction(getattr(cls, name)))
    return type(cls.__name__, (cls,), members)


def _in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method of a session wait for its turn."""

    @wraps(method)
    def call(session: Session, *args: Any, **kwargs: Any) -> Any:
        guard = guard_of(session)
        return guard.call(method, session, *args, **kwargs)

    return call


def _guarding_transaction(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Have what a beginning returns wait for its turn too."""

    @wraps(begin)
    def call(session: Session, *args: Any, **kwargs: Any) -> Any:
        transaction = begin(session, *args, **kwargs)
        guard = guard_of(session)
        for name in _CALLS_OF_TRANSACTION:
            method = getattr(transaction, name)
            setattr(transaction, name, partial(guard.call, method))
        return transaction

    return call
