"""The errors that safesession itself raises.

Errors of SQLAlchemy, of the driver and of the code inside a scope are never
wrapped in these: they leave the scope as they are.
"""

__all__ = [
    "EngineNotConfigured",
    "InvalidArgument",
    "MissingExtra",
    "SafeSessionError",
    "ScopeMisuse",
]


class SafeSessionError(Exception):
    """The base of every error that safesession raises.

    Catch it to tell a mistake in the use of this library from an error of the
    database.

    .. versionadded:: 0.1
    """


class InvalidArgument(SafeSessionError, TypeError):
    """An argument is of the wrong kind; nothing was opened.

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
