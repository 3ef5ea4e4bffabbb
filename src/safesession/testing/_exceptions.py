"""`exceptions`, the Hypothesis strategy."""

import asyncio
from dataclasses import dataclass
from typing import Any, NoReturn

from hypothesis import strategies as st

_BASES: list[type[BaseException]] = [
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

_HOSTILE = [
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
def _classes(draw: st.DrawFn) -> type[BaseException]:
    """Build an exception class: a base, slots, a frozen dataclass, hostile methods."""
    base = draw(st.sampled_from(_BASES))
    make = draw(st.sampled_from(["builtin", "plain", "slots", "frozen", "hostile"]))
    if make == "builtin":
        return base
    namespace: dict[str, Any] = {"__module__": __name__}
    if make == "slots":
        namespace["__slots__"] = ("detail",)
    if make == "hostile":
        names = draw(st.sets(st.sampled_from(_HOSTILE), min_size=1))
        namespace |= dict.fromkeys(names, _refuse)
    built = type(f"{make.title()}{base.__name__}", (base,), namespace)
    if make == "frozen":
        built = dataclass(frozen=True)(built)
    return built


@st.composite
def _single(draw: st.DrawFn) -> BaseException:
    built = draw(_classes())
    if draw(st.booleans()) and built.__init__ is BaseException.__init__:
        return built("told")
    return built()


def _group(members: list[BaseException]) -> BaseException:
    return BaseExceptionGroup("several", members)


def _groups(
    leaves: st.SearchStrategy[BaseException],
) -> st.SearchStrategy[BaseException]:
    return st.builds(_group, st.lists(leaves, min_size=1, max_size=3))


@st.composite
def _with_links(draw: st.DrawFn) -> BaseException:
    made = st.recursive(_single(), _groups, max_leaves=4)
    error = draw(made)
    if draw(st.booleans()):
        _set(error, "__cause__", draw(made))
    if draw(st.booleans()):
        _set(error, "__context__", draw(made))
    _set(error, "__suppress_context__", draw(st.booleans()))
    return error


def _set(error: BaseException, name: str, value: object) -> None:
    """Set an attribute, also on an exception that refuses them."""
    BaseException.__setattr__(error, name, value)


def exceptions() -> st.SearchStrategy[BaseException]:
    """Return a Hypothesis strategy for exceptions of every make.

    It draws built-in exceptions, those with slots, frozen dataclasses, exceptions whose
    ``__str__``, ``__eq__``, ``__hash__``, ``__bool__`` or ``add_note`` raise, groups of
    all of these, and gives them any cause and context; ``BaseException``,
    ``KeyboardInterrupt``, ``GeneratorExit``, ``StopIteration`` and ``CancelledError``
    are among them.

    .. code-block:: python

        @given(error=exceptions())
        def test_my_exception_leaves(error):
            with pytest.raises(type(error)) as caught, session_scope(engine):
                raise error
            assert caught.value is error

    Needs the extra ``safesession[hypothesis]``.

    .. versionadded:: 0.1
    """
    return _with_links()
