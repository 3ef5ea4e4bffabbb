"""What errors there are, and the wording of those that are about no bind."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

import safesession
from safesession import (
    EngineNotConfigured,
    InvalidArgument,
    MissingExtra,
    OutcomeUnknown,
    SafeSessionError,
    ScopeMisuse,
    WriteRefused,
    async_session_scope,
    session_scope,
)
from safesession.fastapi import async_session_dependency
from safesession.retry import async_in_session


@pytest.mark.parametrize(
    ("commit_on", "given"),
    [
        ("ValueError", "an object of type str"),
        ([ValueError], "an object of type list"),
        ((ValueError, 400), "an object of type int"),
        ((ValueError(),), "an object of type ValueError"),
        (int, "the class int"),
        (None, "an object of type NoneType"),
    ],
)
@pytest.mark.parametrize("scope", [session_scope, async_session_scope])
def test_commit_on_that_is_no_exception_types(
    scope: Callable[..., Any], commit_on: Any, given: str
) -> None:
    """`commit_on` is an exception type, or a tuple of them."""
    with pytest.raises(InvalidArgument) as caught:
        scope(None, commit_on=commit_on)

    assert str(caught.value) == (
        f"{scope.__name__}() got {given} in commit_on. Pass an exception class or a "
        "tuple of them, as in commit_on=(HTTPException,)."
    )


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InvalidArgument, TypeError),
        (EngineNotConfigured, RuntimeError),
        (ScopeMisuse, RuntimeError),
        (MissingExtra, ImportError),
        (OutcomeUnknown, DBAPIError),
        (WriteRefused, RuntimeError),
    ],
)
def test_errors_share_a_base_and_are_what_python_calls_them(
    error: type[Exception], builtin: type[Exception]
) -> None:
    """Each error is a SafeSessionError, and the builtin error a user would expect."""
    assert issubclass(error, SafeSessionError)
    assert issubclass(error, builtin)


def test_unknown_name_is_an_attribute_error() -> None:
    """The module has the names it says, and no other."""
    with pytest.raises(AttributeError, match="'safesession' has no attribute 'db'"):
        safesession.db  # noqa: B018


@pytest.mark.parametrize("name", safesession.__all__)
def test_name_is_imported_when_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is imported for the first who asks, and is there for the others."""
    monkeypatch.delitem(vars(safesession), name, raising=False)

    found = getattr(safesession, name)

    assert found.__name__ == name
    assert vars(safesession)[name] is found


@pytest.mark.parametrize(
    ("asked", "ask"),
    [
        ("async_session_scope", lambda: safesession.async_session_scope),
        ("async_session_dependency", lambda: async_session_dependency(None)),
        ("async_in_session", lambda: async_in_session(None)),
    ],
)
def test_async_part_names_the_extra_it_needs(
    asked: str, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without greenlet, the async part says what to install."""
    monkeypatch.delitem(vars(safesession), "async_session_scope", raising=False)
    monkeypatch.setitem(sys.modules, "greenlet", None)

    with pytest.raises(MissingExtra) as caught:
        ask()

    assert str(caught.value) == (
        f"{asked} needs greenlet, which is not installed. Install it with: "
        "pip install 'safesession[asyncio]'"
    )
