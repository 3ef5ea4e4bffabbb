"""Sessions that threads take turns with.

The thread of a `def` endpoint goes on when its request is cancelled, with the session
in its hands, while the exit wants to end it. So what a session does and its exit wait
for each other, and after the exit of a cancelled request the session refuses.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, wraps
from threading import RLock
from typing import Any

from sqlalchemy.engine import FilterResult, Result
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
# or within one of these on what these return,
_BEGINNINGS = ("begin", "begin_nested")
_CALLS_OF_TRANSACTION = ("close", "commit", "prepare", "rollback")
# or on a result, where the methods of the second kind read with each step.
_CALLS_OF_RESULT = (
    "__next__",
    "all",
    "close",
    "fetchall",
    "fetchmany",
    "fetchone",
    "first",
    "freeze",
    "mappings",
    "merge",
    "one",
    "one_or_none",
    "scalar",
    "scalar_one",
    "scalar_one_or_none",
    "scalars",
)
_ITERATIONS_OF_RESULT = ("__iter__", "partitions")
_RESULTS: tuple[type[Any], ...] = (Result, FilterResult)

_GUARD = "_safesession_guard"


class Guard:
    """Whose turn it is to use a session, and whether there is another."""

    __slots__ = ("ended", "turn")

    def __init__(self) -> None:
        # Taken by a `with` statement: no KeyboardInterrupt comes between the lock and
        # its release, and leaves others waiting for ever.
        self.turn = RLock()
        # Whether whoever asks for another turn is refused.
        self.ended = False

    def put_in_turn(self, user: Any, class_of: Callable[[Any], type]) -> None:
        """Have the methods of a session, or of what it returns, be called in turn."""
        user.__class__ = class_of(type(user))
        vars(user)[_GUARD] = self

    def steps(self, iterator: Iterator[Any]) -> Iterator[Any]:
        """Take each step of an iterator in turn, and leave the turn to others after."""
        turn = self.turn
        # call() at each step would take as long as reading a row does.
        while True:
            with turn:
                if self.ended:
                    raise _refusal()
                step = next(iterator, turn)
            if step is turn:
                return
            yield step

    def give_back(self) -> None:
        """Release the turn, as often as this thread has taken it."""
        with suppress(RuntimeError):
            while True:
                self.turn.release()


def _refusal() -> ScopeMisuse:
    return ScopeMisuse(
        "The request that this session belongs to was cancelled, and the session has "
        "ended with it. Work that is to outlive its request needs a session_scope() "
        "of its own."
    )


def open_guarded(open_session: Callable[[], Session | None]) -> Session | None:
    """Open a session whose calls wait for each other."""
    session = open_session()
    if session is not None:
        Guard().put_in_turn(session, _session_class)
    return session


def guard_of(session: Any) -> Guard:
    """Return the guard of a session that `open_guarded` has opened, or of a result."""
    return vars(session)[_GUARD]  # type: ignore[no-any-return]


def _in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method wait for its turn, and a result that it returns do so, too."""

    # Not in steps of their own: these few lines are run ten times for a request.
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        guard: Guard = self.__dict__[_GUARD]
        with guard.turn:
            if guard.ended:
                raise _refusal()
            returned = method(self, *args, **kwargs)
        if isinstance(returned, _RESULTS) and _GUARD not in returned.__dict__:
            guard.put_in_turn(returned, _result_class)
        return returned

    return call


def _guarding_transaction(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Have what a beginning returns wait for its turn too."""

    @wraps(begin)
    def call(session: Session, *args: Any, **kwargs: Any) -> Any:
        transaction = begin(session, *args, **kwargs)
        guard_of(session).put_in_turn(transaction, _transaction_class)
        return transaction

    return call


def _step_by_step(iterate: Callable[..., Any]) -> Callable[..., Any]:
    """Have each step of an iteration wait for its turn."""

    @wraps(iterate)
    def steps(result: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return guard_of(result).steps(iterate(result, *args, **kwargs))

    return steps


def _methods_in_turn(cls: type, names: Iterable[str]) -> dict[str, Any]:
    return {name: _in_turn(getattr(cls, name)) for name in names if hasattr(cls, name)}


# Made a base of the session's class and not derived from it: so what a method of that
# class calls by super() is in turn too.
_InTurn: Any = type(
    "_InTurn",
    (Session,),
    {
        **_methods_in_turn(Session, _CALLS),
        **{
            name: _in_turn(_guarding_transaction(getattr(Session, name)))
            for name in _BEGINNINGS
        },
    },
)


# Bounded, as a service may make a sessionmaker, and so a class, for each request.
@lru_cache(maxsize=128)
def _session_class(cls: type[Session]) -> type[Session]:
    bases = (_InTurn,) if cls is Session else (cls, _InTurn)
    return type(cls.__name__, bases, {"__module__": cls.__module__})


@lru_cache(maxsize=128)
def _transaction_class(cls: type) -> type:
    members = _methods_in_turn(cls, _CALLS_OF_TRANSACTION)
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, **members})


@lru_cache(maxsize=128)
def _result_class(cls: type) -> type:
    members = {
        "__module__": cls.__module__,
        "__slots__": (),
        **_methods_in_turn(cls, _CALLS_OF_RESULT),
        **{name: _step_by_step(getattr(cls, name)) for name in _ITERATIONS_OF_RESULT},
    }
    return type(cls.__name__, (cls,), members)
