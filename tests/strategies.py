"""Hypothesis strategies: exceptions of every make."""

import asyncio
from dataclasses import dataclass
from typing import Any, NoReturn

from hypothesis import strategies as st

BASES: list[type[BaseException]] = [
    Exception,
    ValueError,
    KeyError,
    OSError,
    AssertionError,
    RuntimeError,
    RecursionError,
    MemoryError,
    StopIteration,
    StopAsyncIteration,
    TimeoutError,
    BaseException,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
    asyncio.CancelledError,
]

HOSTILE = [
    "__str__",
    "__repr__",
    "__eq__",
    "__ne__",
    "__hash__",
    "__bool__",
    "__len__",
    "__setattr__",
    "add_note",
    "with_traceback",
]


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise ZeroDivisionError("a hostile method was called")


@st.composite
def exception_types(draw: st.DrawFn) -> type[BaseException]:
    """Build an exception class: a base, slots, a frozen dataclass, hostile methods."""
    base = draw(st.sampled_from(BASES))
    make = draw(st.sampled_from(["builtin", "plain", "slots", "frozen", "hostile"]))
    if make == "builtin":
        return base
    namespace: dict[str, Any] = {"__module__": __name__}
    if make == "slots":
        namespace["__slots__"] = ("detail",)
    if make == "hostile":
        names = draw(st.sets(st.sampled_from(HOSTILE), min_size=1))
        namespace |= dict.fromkeys(names, _refuse)
    built = type(f"{make.title()}{base.__name__}", (base,), namespace)
    if make == "frozen":
        built = dataclass(frozen=True)(built)
    return built


@st.composite
def _single(draw: st.DrawFn) -> BaseException:
    built = draw(exception_types())
    if draw(st.booleans()) and built.__init__ is BaseException.__init__:
        return built("told")
    return built()


def _groups(leaves: st.SearchStrategy[BaseException]) -> Any:
    return st.builds(
        lambda members: BaseExceptionGroup("several", members),
        st.lists(leaves, min_size=1, max_size=3),
    )


@st.composite
def exceptions(draw: st.DrawFn) -> BaseException:
    """Build an exception, or a nested group, with any cause and context."""
    made = st.recursive(_single(), _groups, max_leaves=4)
    error = draw(made)
    if draw(st.booleans()):
        set_attribute(error, "__cause__", draw(made))
    if draw(st.booleans()):
        set_attribute(error, "__context__", draw(made))
    set_attribute(error, "__suppress_context__", draw(st.booleans()))
    return error


def set_attribute(error: BaseException, name: str, value: object) -> None:
    """Set an attribute, also on an exception that refuses them."""
    BaseException.__setattr__(error, name, value)
