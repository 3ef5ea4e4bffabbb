"""503 for a database that is not to be had."""

import inspect
from contextlib import suppress
from importlib import import_module
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ._lost import was_connecting
from ._report import describe, logger
from .errors import EngineNotConfigured, OutcomeUnknown

# What a database that is not to be had may raise, and much else beside.
_TYPES: list[type[Exception]] = [
    EngineNotConfigured,
    PoolTimeoutError,
    DBAPIError,
    OSError,
]
with suppress(ImportError):
    # SQLAlchemy 2.0 does not wrap what asyncpg raises while connecting.
    _asyncpg = import_module("asyncpg")
    _TYPES.extend([_asyncpg.PostgresError, _asyncpg.InternalClientError])


def add_exception_handlers(app: FastAPI, *, retry_after: int = 1) -> None:
    """Answer 503 with ``Retry-After`` where the database is not to be had.

    That is: the bind is ``None`` (:class:`~safesession.EngineNotConfigured`), no
    connection could be opened, the pool timed out, or the connection was lost during a
    statement. A connection lost during COMMIT is none of these, as the work may have
    been committed.

    Whatever else is raised reaches the handlers that the app has, whether they were
    added before this call or after it, or else the server. So does the error of a
    WebSocket. An error that arises after the response has begun, as in a background
    task, reaches the server as Starlette reports one that has a handler: as the cause
    of a ``RuntimeError``.

    Args:
        app: The application.
        retry_after: The seconds that the answer asks the client to wait. Default: 1.

    .. versionadded:: 0.1
    """
    answer = _Answer(app, retry_after)
    for cls in _TYPES:
        app.add_exception_handler(cls, answer)


class _Answer:
    """The handler: it answers, or does what would be done if it were not there."""

    def __init__(self, app: FastAPI, retry_after: int) -> None:
        self._app = app
        self._headers = {"Retry-After": str(retry_after)}
        self._displaced: dict[type, Any] = {
            cls: self._other_handler(cls) for cls in _TYPES
        }

    async def __call__(self, request: Any, error: Exception) -> Any:
        if isinstance(request, Request) and _is_unavailable(error):
            logger.error("safesession: answered 503: %s", describe(error))
            return JSONResponse(
                {"detail": "Service Unavailable"}, 503, headers=self._headers
            )
        for cls in type(error).__mro__:
            handler = self._other_handler(cls)
            # Handlers of Exception itself are called by the server's middleware.
            if handler is None or cls is Exception:
                continue
            if any(map(inspect.iscoroutinefunction, (handler, handler.__call__))):
                return await handler(request, error)
            return await run_in_threadpool(handler, request, error)
        raise error

    def _other_handler(self, cls: type) -> Any:
        handler = self._app.exception_handlers.get(cls)
        return handler._displaced[cls] if isinstance(handler, _Answer) else handler


def _is_unavailable(error: Exception) -> bool:
    if isinstance(error, (EngineNotConfigured, PoolTimeoutError)):
        return True
    if isinstance(error, DBAPIError) and error.statement is not None:
        return error.connection_invalidated and not isinstance(error, OutcomeUnknown)
    return was_connecting(error)
