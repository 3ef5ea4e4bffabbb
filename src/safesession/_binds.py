"""What was given for an argument: of which kind it is, and how an error names it."""

import inspect
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.orm import Session, sessionmaker


def is_callable_bind(bind: Any) -> bool:
    """Tell a callable that may return a bind from a bind, a class, a generator."""
    if inspect.isclass(bind) or not callable(bind):
        return False
    return not (_is_sync(bind) or _is_async(bind) or suspends(inspect.unwrap(bind)))


def describe(value: object) -> str:
    """Name what was given, without its repr: that may hold a password."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    # Not inspect.isroutine(): from Python 3.14 on, a partial is one, without a name.
    if isinstance(value, (FunctionType, BuiltinFunctionType, MethodType)):
        return f"the function {value.__name__}()"
    return f"an object of type {type(value).__name__}"


def hint(call: str, bind: Any) -> str:
    """Say what to do about a bind that is often given by mistake."""
    takes_async = call.startswith("async_")
    if isinstance(bind, (str, URL)):
        create = "create_async_engine" if takes_async else "create_engine"
        return f"Make an engine of a URL first, with {create}(). "
    if _is_sync(bind) and takes_async:
        return f"That one goes with {call.removeprefix('async_')}(). "
    if _is_async(bind) and not takes_async:
        return f"That one goes with async_{call}(). "
    if _is_sync(bind) or _is_async(bind):
        return "Each scope opens a session of its own here: pass its sessionmaker. "
    if suspends(inspect.unwrap(bind)):
        return (
            "It is a generator, a context manager or a coroutine, and "
            f"{call}() stands in its place: pass what it opens the session on. "
        )
    return ""


def _is_sync(value: object) -> bool:
    return isinstance(value, (Engine, Connection, sessionmaker, Session))


def _is_async(value: object) -> bool:
    # By name: importing sqlalchemy.ext.asyncio would require greenlet.
    return any(
        cls.__module__.startswith("sqlalchemy.ext.asyncio")
        for cls in type(value).__mro__
    )


def suspends(function: Any) -> bool:
    """Tell a generator or coroutine function, or an object called as one."""
    return any(
        inspect.isgeneratorfunction(each)
        or inspect.isasyncgenfunction(each)
        or inspect.iscoroutinefunction(each)
        for each in (function, getattr(type(function), "__call__", None))
    )
