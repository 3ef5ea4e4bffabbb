"""Functions that are decorated for their work to be run again."""

from collections.abc import Iterator
from inspect import signature
from typing import Any, get_type_hints

import pytest
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from models import Note, stored
from retried import CALLS, SYNC, refusal
from safesession import InvalidArgument
from safesession.retry import async_in_session, in_session

pytestmark = pytest.mark.usefixtures("no_backoff")
pytest_plugins = ("retry_fixtures",)


def test_decorator(engine: Engine, observer: Engine) -> None:
    """The callers pass what comes after the session, as often as they like."""
    errors: list[Exception] = []

    @in_session(sessionmaker(engine))
    def write(session: Session, *texts: str, suffix: str = "") -> int:
        """Write them."""
        session.add_all([Note(text=each + suffix) for each in texts])
        if errors:
            raise errors.pop()
        return len(texts)

    assert write("a", "b") == 2
    errors.append(refusal())
    assert write("c", suffix="!") == 1

    assert write.__name__ == "write"
    assert write.__doc__ == "Write them."
    assert stored(observer) == ["a", "b", "c!"]


@pytest.mark.anyio
async def test_async_decorator(async_engine: AsyncEngine, observer: Engine) -> None:
    """The same for a coroutine function."""
    errors = [refusal()]

    @async_in_session(async_sessionmaker(async_engine))
    async def write(session: AsyncSession, text: str) -> str:
        session.add(Note(text=text))
        await session.flush()
        if errors:
            raise errors.pop()
        return text

    assert await write("a") == "a"
    assert stored(observer) == ["a"]


@pytest.mark.parametrize("call", ["in_session", "async_in_session"])
def test_decorator_without_its_parentheses(call: str) -> None:
    """What was to be decorated is told from a callable that returns an engine."""

    def pay(session: Session, amount: int) -> None:
        """Pay it."""

    async def async_pay(session: AsyncSession) -> None:
        """Pay."""

    function: Any = pay if call in SYNC else async_pay
    with pytest.raises(InvalidArgument) as raised:
        CALLS[call](function)

    assert str(raised.value) == (
        f"{call}() got the function {function.__name__}() as its bind, and that takes "
        f"arguments. To decorate a function, write @{call}(engine) above it."
    )


def test_decorator_with_a_callable(engine: Engine, observer: Engine) -> None:
    """It is asked for its engine with each attempt, and not before."""
    engines: list[Engine] = []

    @in_session(lambda: engines[-1])
    def write(session: Session) -> None:
        session.add(Note(text="written"))

    engines.append(engine)
    write()

    assert stored(observer) == ["written"]


@pytest.mark.parametrize("call", ["in_session", "async_in_session"])
def test_decorator_of_a_method(
    engine: Engine, async_engine: AsyncEngine, call: str
) -> None:
    """Its first argument is not the session."""
    bind = engine if call in SYNC else async_engine
    with pytest.raises(InvalidArgument) as raised:

        class Repository:
            if call in SYNC:

                @in_session(engine)
                def save(self, session: Session) -> None:
                    """Save it."""

            else:

                @async_in_session(bind)  # type: ignore[arg-type]
                async def save(self, session: AsyncSession) -> None:
                    """Save it."""

    assert str(raised.value) == (
        f"{call}() got the function save(), whose first argument is self, and the "
        "session has to be. Decorate a function, and call it from the method."
    )


def test_signature_is_without_the_session(engine: Engine) -> None:
    """Who looks at it, as FastAPI does, finds what the callers pass."""

    @in_session(engine)
    def add(session: Session, /, text: "str", *, suffix: str = "!") -> "int":
        return len(text)

    @in_session(engine)
    def count(*args: Any, **kwargs: Any) -> int:
        return len(args)

    @in_session(engine)
    def nothing() -> None:
        """Take nothing."""

    assert str(signature(add)) == "(text: 'str', *, suffix: str = '!') -> 'int'"
    assert get_type_hints(add) == {"text": str, "suffix": str, "return": int}
    assert list(signature(count).parameters) == ["args", "kwargs"]
    assert count(1, 2) == 3
    assert list(signature(nothing).parameters) == []


def test_class_method(engine: Engine) -> None:
    """Its first argument is the class."""

    def save(cls: Any, session: Session) -> None:
        """Save it."""

    with pytest.raises(InvalidArgument, match="whose first argument is cls, and the"):
        in_session(engine)(save)


def test_callable_without_a_signature(engine: Engine) -> None:
    """Some of Python's own have none: they may take anything."""
    in_dict = in_session(engine, class_=Empty)(dict)

    assert isinstance(in_dict(a=1), dict)
    assert str(signature(in_dict)) == "(*arguments)"


class Empty(Session):
    """A session that dict() takes for pairs."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def keys(self) -> Any:
        return ()
