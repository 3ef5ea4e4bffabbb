"""503 for a database that is not to be had."""

import inspect
import traceback
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ._report import describe, logger
from .errors import EngineNotConfigured


def add_exception_handlers(app: FastAPI, *, retry_after: int = 1) -> None:
    """Answer 503 with ``Retry-After`` where the database is not to be had.

    That is: the bind is ``None`` (:class:`~safesession.EngineNotConfigured`), no
    connection could be opened, the pool timed out, or the connection was lost during a
    statement. A connection lost during COMMIT is none of these, as the work may have
    been committed. Whatever else is raised reaches the handlers that the app
    has, or the server, as if this had not been called; so does a database that is not
    to be had in a WebSocket.

    Args:
        app: The application. Handlers it has already are kept.
        retry_after: The seconds that the answer asks the client to wait. Default: 1.

    .. versionadded:: 0.1
    """
    kept = dict(app.exception_handlers)

    async def answer(request: Any, error: Exception) -> Any:
        if isinstance(request, Request) and _is_unavailable(error):
            logger.error("safesession: answered 503: %s", describe(error))
            return JSONResponse(
                {"detail": "Service Unavailable"},
                status_code=503,
                headers={"Retry-After": str(retry_after)},
            )
        for cls in type(error).__mro__:
            handler = kept.get(cls) or app.exception_handlers.get(cls)
            if handler not in (None, answer) and cls is not Exception:
                response = await run_in_threadpool(handler, request, error)
                if inspect.isawaitable(response):
                    response = await response
                return response
        raise error

    for cls in (EngineNotConfigured, PoolTimeoutError, DBAPIError, OSError):
        app.add_exception_handler(cls, answer)


def _is_unavailable(error: Exception) -> bool:
    if isinstance(error, (EngineNotConfigured, PoolTimeoutError)):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return error.statement is not None
    # Drivers name a failure to connect in their own ways, asyncpg by a bare OSError;
    # but all of them raise it from the pool.
    return any(
        frame.f_globals.get("__name__", "").startswith("sqlalchemy.pool.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
