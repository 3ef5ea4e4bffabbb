"""`Faults`: record the calls that reach a driver, and have some of them fail."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from unittest.mock import patch

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

# The dialect's methods that reach the driver, by the name of the call.
_ON_CONNECTION = {
    "do_begin": "begin",
    "do_commit": "commit",
    "do_rollback": "rollback",
    "do_close": "close",
    "do_terminate": "close",
    "connect": "connect",
}
_ON_CURSOR = {
    "do_execute": "execute",
    "do_execute_no_params": "execute",
    "do_executemany": "executemany",
}
_FETCHES = ("fetchone", "fetchmany", "fetchall")


@dataclass(frozen=True, slots=True)
class Fault:
    """How a call fails.

    Args:
        error: What the call raises.
        after: Whether the call takes effect first, as a COMMIT does whose answer is
            lost. Default: ``False``. A connection that fails to close is closed all
            the same, and one that fails to open is not open.
        disconnect: Whether SQLAlchemy is to see a lost connection in a driver's error.
        always: Whether every call of that name fails, and not the first alone.
    """

    error: BaseException
    after: bool = False
    disconnect: bool = False
    always: bool = False


class Faults:
    """Number the calls that reach the driver of an engine, and have some of them fail.

    A call is ``"connect"``, ``"begin"``, ``"cursor"``, ``"execute INSERT"`` (or
    whatever a statement begins with, such as ``"execute ROLLBACK TO"``),
    ``"executemany INSERT"``, ``"fetch"``, ``"cursor close"``, ``"commit"``,
    ``"rollback"``, ``"reset"`` (the pool's ROLLBACK), ``"close"``; and the pool's hooks
    ``"hook reset"`` and ``"hook checkin"``.

    .. code-block:: python

        with Faults(engine, {"commit": OperationalError("disk full")}) as faults:
            ...
        assert faults.injected

    Args:
        engine: The engine, sync or async.
        faults: What fails, and how: a number, counted from 1, is that call; a name is
            the first call whose name is this, or begins with this word.
    """

    def __init__(
        self,
        engine: "Engine | AsyncEngine",
        faults: Mapping[int | str, BaseException | Fault] | None = None,
    ) -> None:
        sync_engine: Any = getattr(engine, "sync_engine", engine)
        self._engine: Engine = sync_engine
        self._faults = {
            key: fault if isinstance(fault, Fault) else Fault(fault)
            for key, fault in (faults or {}).items()
        }
        self._disconnects = [
            fault.error for fault in self._faults.values() if fault.disconnect
        ]
        self._resetting: object = None
        self._patches = ExitStack()
        #: The names of the calls, in their order.
        self.calls: list[str] = []
        #: Those that failed, by their number.
        self.injected: dict[int, Fault] = {}

    def __enter__(self) -> Self:
        dialect, pool = self._engine.dialect, self._engine.pool
        self._is_disconnect = dialect.is_disconnect
        self._replace("is_disconnect", self._is_disconnect_too)
        self._replace(
            "execution_ctx_cls", self._with_cursors(dialect.execution_ctx_cls)
        )
        for method, name in _ON_CONNECTION.items():
            if not _is_default(dialect, method):
                call = partial(self._on_connection, name, getattr(dialect, method))
                self._replace(method, call)
        for method, name in _ON_CURSOR.items():
            call = partial(self._on_cursor, name, getattr(dialect, method))
            self._replace(method, call)
        for hook in (self._reset, self._checkin):
            name = hook.__name__.strip("_")
            event.listen(pool, name, hook)
            self._patches.callback(event.remove, pool, name, hook)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._patches.close()

    def call(
        self,
        name: str,
        make: Callable[[], Any],
        clean_up: Callable[[], Any] | None = None,
    ) -> Any:
        """Make a call of the driver, unless it is to fail."""
        self.calls.append(name)
        fault = self._take(len(self.calls), name)
        if fault is None:
            return make()
        self.injected[len(self.calls)] = fault
        if name == "close" or (fault.after and name != "connect"):
            make()
        if clean_up is not None:
            clean_up()
        raise fault.error

    def _take(self, number: int, name: str) -> Fault | None:
        for key, fault in self._faults.items():
            if key == number or (
                isinstance(key, str) and f"{name} ".startswith(f"{key} ")
            ):
                if not fault.always:
                    del self._faults[key]
                return fault
        return None

    def _replace(self, name: str, value: object) -> None:
        self._patches.enter_context(patch.object(self._engine.dialect, name, value))

    def _on_connection(
        self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._resetting is not None and args:
            resetting, self._resetting = self._resetting, None
            if getattr(args[0], "dbapi_connection", None) is resetting:
                name = "reset"
        return self.call(name, partial(method, *args, **kwargs))

    def _on_cursor(
        self,
        name: str,
        method: Callable[..., Any],
        cursor: Any,
        statement: str,
        *rest: Any,
    ) -> Any:
        words = statement.split(None, 2)[:2]
        begins = " ".join(words if words[1:] == ["TO"] else words[:1])
        if isinstance(cursor, _Cursor):
            cursor = cursor.driver_cursor
        make = partial(method, cursor, statement, *rest)
        # SQLite keeps its locks for as long as there are rows to be read.
        return self.call(f"{name} {begins}", make, cursor.close)

    def _with_cursors(self, base: Any) -> type[Any]:
        def create_cursor(context: Any) -> Any:
            create = partial(base.create_cursor, context)
            return _Cursor(self, self.call("cursor", create))

        return type(base.__name__, (base,), {"create_cursor": create_cursor})

    def _is_disconnect_too(self, error: Any, connection: Any, cursor: Any) -> bool:
        if any(error is disconnect for disconnect in self._disconnects):
            return True
        return self._is_disconnect(error, connection, cursor)

    def _reset(self, dbapi_connection: Any, record: Any, state: Any) -> None:
        if not state.transaction_was_reset:
            self._resetting = dbapi_connection
        self.call("hook reset", _do_nothing)

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        self._resetting = None
        self.call("hook checkin", _do_nothing)


class _Cursor:
    """A driver's cursor, whose reading and closing are calls too."""

    faults: Faults
    driver_cursor: Any

    def __init__(self, faults: Faults, driver_cursor: Any) -> None:
        vars(self).update(faults=faults, driver_cursor=driver_cursor)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.driver_cursor, name)
        if name in _FETCHES:
            return partial(self._fetch, value)
        if name == "close":
            return partial(self.faults.call, "cursor close", value, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.driver_cursor, name, value)

    def _fetch(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        make = partial(method, *args, **kwargs)
        return self.faults.call("fetch", make, self.driver_cursor.close)


def _is_default(dialect: Any, method: str) -> bool:
    """Tell whether the dialect does nothing of its own there."""
    if method not in ("do_begin", "do_terminate"):
        return False
    default: Any = getattr(DefaultDialect, method)
    return getattr(type(dialect), method) is default


def _do_nothing() -> None:
    pass


def loses_connections(faults: Mapping[int | str, BaseException | Fault]) -> bool:
    """Tell whether SQLAlchemy's own Session leaves a connection out of the pool."""
    engine = create_engine("sqlite://", poolclass=QueuePool)
    proxies: list[Any] = []
    event.listen(engine, "checkout", lambda *args: proxies.append(args[2]))
    with suppress(BaseException), Faults(engine, faults), Session(engine) as session:
        session.connection()
    pool: Any = engine.pool
    lost: bool = pool.checkedout() > 0
    for proxy in proxies:
        if proxy.is_valid:
            proxy.invalidate()
    engine.dispose()
    return lost
