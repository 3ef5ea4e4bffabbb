"""The errors that safesession itself raises.

Errors of SQLAlchemy, of the driver and of the code inside a scope leave the scope as
they are. The one exception is a connection that is lost during COMMIT, as there is more
to say of it than the driver says: :class:`OutcomeUnknown`.
"""

from sqlalchemy.exc import DBAPIError

__all__ = [
    "EngineNotConfigured",
    "InvalidArgument",
    "MissingExtra",
    "OutcomeUnknown",
    "SafeSessionError",
    "ScopeMisuse",
    "WriteRefused",
]


class SafeSessionError(Exception):
    """The base of every error that safesession raises.

    Most of them tell of a mistake in the use of this library. One is an error of the
    database, too: catch :class:`OutcomeUnknown` before it.

    .. versionadded:: 0.1
    """


class InvalidArgument(SafeSessionError, TypeError):
    """An argument is of the wrong kind; nothing was done.

    The message names the argument, what was given and what to pass instead.
    Correct the call.

    .. versionadded:: 0.1
    """


class EngineNotConfigured(SafeSessionError, RuntimeError):
    """The bind is ``None``, or the callable given as bind returned ``None``.

    Configure the engine before the scope is entered. Where the service has to
    run without a database, pass ``missing_ok=True`` and expect ``None`` for a
    session.

    .. versionadded:: 0.1
    """


class ScopeMisuse(SafeSessionError, RuntimeError):
    """A scope was entered twice, or left without having been entered.

    A scope object serves one ``with`` block. Make a new one for each block.

    .. versionadded:: 0.1
    """


class MissingExtra(SafeSessionError, ImportError):
    """What was asked for needs a package that is not installed.

    The message names the extra; install it.

    .. versionadded:: 0.1
    """


class OutcomeUnknown(SafeSessionError, DBAPIError):
    """The connection was lost during COMMIT: the work is committed, or it is not.

    COMMIT was sent, and no answer came. The driver's error is the ``orig``, and the
    error that SQLAlchemy made of it the cause.

    It is never run again by itself, as then it might be done twice. What you can do:
    look, in a new scope, for what the work leaves (a row with a key that was chosen
    before the first attempt), and do the work again if there is nothing. Or make it
    such that to do it twice is to do it once, and pass ``idempotent=True`` to
    :func:`safesession.retry.run_in_session`.

    .. versionadded:: 0.1
    """


class WriteRefused(SafeSessionError, RuntimeError):
    """A write was tried in a session that is ``read_only``; it was not sent.

    Do it in a scope without ``read_only=True``. What the database refuses by itself,
    such as an INSERT in text, is an error of the driver's.

    .. versionadded:: 0.1
    """
