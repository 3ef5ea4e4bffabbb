"""The wording of errors about a bind, or about a class beside it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel import SQLModel

from safesession import InvalidArgument, async_session_scope, session_scope

URL_OF_SECRET = "postgresql+psycopg://user:secret@localhost/name"
SYNC_ENGINE = create_engine("sqlite://")
ASYNC_ENGINE = create_async_engine("sqlite+aiosqlite://")

PASS_SYNC = (
    "Pass an instance of Engine, Connection or sessionmaker, or a callable that "
    "returns one; or an instance of Session, for a SAVEPOINT in it."
)
PASS_ASYNC = (
    "Pass an instance of AsyncEngine, AsyncConnection or async_sessionmaker, or a "
    "callable that returns one; or an instance of AsyncSession, for a SAVEPOINT in it."
)
STANDS_IN = (
    "It is a generator, a context manager or a coroutine, and {call}() stands in its "
    "place: pass what it opens the session on."
)


def generator() -> Iterator[Session]:
    yield Session()


async def async_generator() -> AsyncIterator[Session]:
    yield Session()


async def coroutine() -> Engine:
    return SYNC_ENGINE


class GeneratorObject:
    def __call__(self) -> Iterator[Session]:
        yield Session()


@pytest.mark.parametrize(
    ("bind", "given", "hint"),
    [
        (7, "an object of type int", ""),
        (
            URL_OF_SECRET,
            "an object of type str",
            "Make an engine of a URL first, with create_engine().",
        ),
        (
            make_url(URL_OF_SECRET),
            "an object of type URL",
            "Make an engine of a URL first, with create_engine().",
        ),
        (Session, "the class Session", ""),
        (
            ASYNC_ENGINE,
            "an object of type AsyncEngine",
            "That one goes with async_session_scope().",
        ),
        (
            async_sessionmaker(ASYNC_ENGINE),
            "an object of type async_sessionmaker",
            "That one goes with async_session_scope().",
        ),
        (
            AsyncSession(ASYNC_ENGINE),
            "an object of type AsyncSession",
            "That one goes with async_session_scope().",
        ),
        (generator, "the function generator()", STANDS_IN),
        (async_generator, "the function async_generator()", STANDS_IN),
        (coroutine, "the function coroutine()", STANDS_IN),
        (contextmanager(generator), "the function generator()", STANDS_IN),
        (
            asynccontextmanager(async_generator),
            "the function async_generator()",
            STANDS_IN,
        ),
        (partial(generator), "an object of type partial", STANDS_IN),
        (GeneratorObject(), "an object of type GeneratorObject", STANDS_IN),
    ],
)
def test_wrong_bind(bind: Any, given: str, hint: str) -> None:
    """A wrong bind is refused by the call, which says what to pass instead."""
    with pytest.raises(InvalidArgument) as caught:
        session_scope(bind)

    hint = hint.format(call="session_scope")
    assert str(caught.value) == " ".join(
        filter(None, [f"session_scope() got {given} as its bind.", hint, PASS_SYNC])
    )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("bind", "given", "hint"),
    [
        (
            SYNC_ENGINE,
            "an object of type Engine",
            "That one goes with session_scope().",
        ),
        (
            sessionmaker(SYNC_ENGINE),
            "an object of type sessionmaker",
            "That one goes with session_scope().",
        ),
        (
            Session(SYNC_ENGINE),
            "an object of type Session",
            "That one goes with session_scope().",
        ),
        (coroutine, "the function coroutine()", STANDS_IN),
        (
            URL_OF_SECRET,
            "an object of type str",
            "Make an engine of a URL first, with create_async_engine().",
        ),
    ],
)
def test_wrong_bind_of_the_async_scope(bind: Any, given: str, hint: str) -> None:
    """The async scope says the same in its own words."""
    with pytest.raises(InvalidArgument) as caught:
        async_session_scope(bind)

    hint = hint.format(call="async_session_scope")
    assert str(caught.value) == (
        f"async_session_scope() got {given} as its bind. {hint} {PASS_ASYNC}"
    )


@pytest.mark.parametrize(
    ("returned", "given", "hint"),
    [
        (7, "an object of type int", ""),
        (lambda: SYNC_ENGINE, "the function <lambda>()", ""),
        (
            Session(SYNC_ENGINE),
            "an object of type Session",
            "Each scope opens a session of its own here: pass its sessionmaker. ",
        ),
        (
            ASYNC_ENGINE,
            "an object of type AsyncEngine",
            "That one goes with async_session_scope(). ",
        ),
    ],
)
def test_callable_that_returns_something_else(
    returned: Any, given: str, hint: str
) -> None:
    """What a callable returns is checked before anything is opened."""

    def bind() -> Any:
        return returned

    with pytest.raises(InvalidArgument) as caught, session_scope(bind):
        pytest.fail("entered")

    assert str(caught.value) == (
        f"session_scope() got {given} from the function bind() as its bind. "
        f"{hint}{PASS_SYNC}"
    )


@pytest.mark.parametrize(
    "bind", [ASYNC_ENGINE.sync_engine, sessionmaker(ASYNC_ENGINE.sync_engine)]
)
def test_sync_engine_on_an_async_driver(bind: Any) -> None:
    """A sync engine whose driver awaits is refused, and not at the first statement."""
    with pytest.raises(InvalidArgument) as caught:
        session_scope(bind)

    assert str(caught.value) == (
        "session_scope() got an engine on the async driver aiosqlite. Make it with "
        "create_async_engine() and pass it to async_session_scope(), or use a sync "
        "driver."
    )


def test_engine_configured_later_is_checked_on_entering() -> None:
    """An engine that a sessionmaker was told of after the call is refused as well."""
    maker = sessionmaker()
    scope = session_scope(maker)
    maker.configure(bind=ASYNC_ENGINE.sync_engine)

    with pytest.raises(InvalidArgument, match="the async driver aiosqlite"), scope:
        pytest.fail("entered")


def test_scoped_session_is_refused() -> None:
    """A registry of sessions is a callable that returns a session."""
    registry = scoped_session(sessionmaker(SYNC_ENGINE))
    with (
        pytest.raises(InvalidArgument, match="from an object of type scoped_session"),
        session_scope(registry),  # type: ignore[call-overload]
    ):
        pytest.fail("entered")
    registry.remove()


@pytest.mark.parametrize("class_", [SQLModel, AsyncSession, "Session"])
def test_class_that_is_no_session_class(class_: Any) -> None:
    """`class_` is a session class."""
    with pytest.raises(InvalidArgument) as caught:
        session_scope(SYNC_ENGINE, class_=class_)

    given = (
        "an object of type str"
        if class_ == "Session"
        else f"the class {class_.__name__}"
    )
    assert str(caught.value) == (
        f"session_scope() got {given} as class_. "
        "Pass Session or a class derived from it."
    )


@pytest.mark.parametrize(
    ("bind", "given"),
    [
        (sessionmaker(SYNC_ENGINE), "an object of type sessionmaker"),
        (Session(SYNC_ENGINE), "an object of type Session"),
    ],
)
def test_class_beside_a_bind_that_settles_it(bind: Any, given: str) -> None:
    """`class_` goes with an engine or a connection."""
    with pytest.raises(InvalidArgument) as caught:
        session_scope(bind, class_=Session)

    assert str(caught.value) == (
        f"session_scope() got class_ beside {given}, which settles the session class "
        "itself. Leave class_ out, or pass the engine as bind."
    )
