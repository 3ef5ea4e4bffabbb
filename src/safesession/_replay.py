"""Requests that are run again where the database has refused their transaction."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote

from ._admission import Holder
from ._attempts import Attempts, limits_of
from ._binds import describe
from .errors import InvalidArgument

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class RetryMiddleware:
    """Run a request again where the database has refused its transaction: an opt-in.

    The transaction of a session dependency ends before the response begins, so that a
    request which :func:`is_retryable` says may succeed can be run again, from its
    beginning, before its client hears of anything. It is, where

    - the error has left a session that a dependency of :mod:`safesession.fastapi` gave,
    - none of the request's sessions has committed, or is on a connection of others,
    - nothing of the response was sent, and
    - its body is not larger than `max_body_size`.

    An attempt that is followed by another answers nothing, and runs no background task:
    an exception handler's response ends with an :class:`OSError` where it would begin,
    as if the client had gone. Each attempt begins with the request's state as it was
    before the first, but with the context variables that the ones before have set. What
    an endpoint does by itself, such as calling another service, it does with each
    attempt: leave it to a background task.

    .. code-block:: python

        app.add_middleware(RetryMiddleware)

    Args:
        app: The application; ``add_middleware`` passes it.
        attempts: How many attempts there may be, ``None`` for no limit. Default: 10.
        timeout: For how many seconds from the beginning a failure may be followed by
            another attempt, which waits for up to two more, ``None`` for no limit.
            Default: 10.
        idempotent: Whether any request may be done twice, so that one is run again
            after an :class:`~safesession.OutcomeUnknown`. Default: ``False``.
        max_body_size: Up to how many bytes of a request's body are kept for another
            attempt. Default: 65536.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        attempts: int | None = 10,
        timeout: float | None = 10.0,
        idempotent: bool = False,
        max_body_size: int = 65536,
    ) -> None:
        self._app = app
        self._limits = limits_of("RetryMiddleware", attempts, timeout, idempotent)
        # Not isinstance(): a bool is an int, too.
        if type(max_body_size) is not int:
            raise InvalidArgument(
                f"RetryMiddleware() got {describe(max_body_size)} as max_body_size. "
                "Pass how many bytes of a request's body are to be kept."
            )
        self._max_body_size = max_body_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The path is as the client has sent it, but for its quoting.
        work = f"{scope['method']} {quote(scope['path'])}"
        attempts = Attempts(work, self._limits, RetryMiddleware)
        body = _Body(receive, self._max_body_size)
        given = _Given(scope)
        await attempts.begin()
        while await _Attempt(attempts, body, send).run(self._app, scope):
            given.restore()


class _Superseded(OSError):
    """Raised by `send` in an attempt that another follows, as ASGI has it for a client
    that has gone: what would have answered ends there, and runs no background task.
    """


class _Attempt:
    """One run of the application for a request."""

    def __init__(self, attempts: Attempts, body: "_Body", send: Send) -> None:
        self._attempts = attempts
        self._body = body
        self._send = send
        self._holder = Holder(attempts.watch)
        self._has_begun = False
        self._is_asked = False
        self._is_superseded = False

    async def run(self, app: ASGIApp, scope: Scope) -> bool:
        """Run it; return whether another is to follow, and raise where none is."""
        self._body.rewind()
        scope["safesession"] = self._holder
        raised: Exception | None = None
        try:
            await app(scope, self._receive, self._send_unless_superseded)
        except Exception as error:
            raised = error
        if not await self._supersede() and raised is not None:
            self._attempts.tell(raised)
            raise raised
        return self._is_superseded

    async def _supersede(self) -> bool:
        """Wait for the time of another attempt, if there is one; tell if there is."""
        # Once, whatever comes of it: who asks stamina has ended the attempt for it.
        if not self._is_asked and (error := self._refusal()) is not None:
            self._is_asked = True
            follows = await self._attempts.another_follows(error)
            # While it waited, others may have sent, or heard from the client.
            self._is_superseded = follows and self._can_follow()
            self._body.is_settled = self._is_superseded
        return self._is_superseded

    def _refusal(self) -> BaseException | None:
        error = self._holder.error
        # A session that is open yet may still commit.
        if error is None or self._holder.sessions or not self._can_follow():
            return None
        return error if self._attempts.may_follow(error) else None

    def _can_follow(self) -> bool:
        return self._body.is_whole and not self._has_begun

    async def _receive(self) -> Message:
        # What is left of the body is for the attempt that follows.
        if self._is_superseded:
            return {"type": "http.disconnect"}
        return await self._body.receive()

    async def _send_unless_superseded(self, message: Message) -> None:
        if await self._supersede():
            raise _Superseded("Nobody hears this answer: the request is run again.")
        self._has_begun = True
        await self._send(message)


class _Given:
    """What a request came with, which each attempt finds as it was.

    An attempt changes it in place, as what is around may look at it meanwhile: for the
    route, or for what the endpoint has put into the state.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._values = dict(scope)
        values: list[Any] = list(scope.values())
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = [
            (each, dict(each)) for each in values if type(each) is dict
        ]
        self._lists: list[tuple[list[Any], list[Any]]] = [
            (each, list(each)) for each in values if type(each) is list
        ]

    def restore(self) -> None:
        self._scope.clear()
        self._scope.update(self._values)
        for state, original in self._dicts:
            state.clear()
            state.update(original)
        for changed, items in self._lists:
            changed[:] = items


class _Body:
    """The body of a request, which is given to each attempt from its beginning."""

    def __init__(self, receive: Receive, max_size: int) -> None:
        self._receive = receive
        self._left = max_size
        self._messages: list[Message] = []
        self.rewind()
        # Whether another attempt can be given all of it.
        self.is_whole = True

    def rewind(self) -> None:
        self._given = 0
        # Whether it has been decided that another attempt follows.
        self.is_settled = False

    async def receive(self) -> Message:
        if self._given < len(self._messages):
            self._given += 1
            return self._messages[self._given - 1]
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        # What the attempt before was waiting for is kept, however much it is.
        if not self.is_settled:
            self._judge(message)
        if self.is_whole:
            self._messages.append(message)
            self._given += 1
        return message

    def _judge(self, message: Message) -> None:
        if message["type"] != "http.request" or self._left < 0:
            # The client has gone; or there is more than is to be kept.
            self.is_whole = False
            self._messages.clear()
