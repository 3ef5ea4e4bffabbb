"""What is called as a dependency of this library's is, and is not it."""

import asyncio
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from safesession import ScopeMisuse
from safesession.fastapi import session_dependency

app = FastAPI()
engine = create_engine("sqlite:///app.db")
get_session = session_dependency(engine)
get_other = session_dependency(engine)
get_bound_twice = session_dependency(engine)
get_replaced = session_dependency(engine)
get_deleted = session_dependency(engine)
del get_deleted
get_unpacked, get_starred = session_dependency(engine), session_dependency(engine)
[get_listed] = [session_dependency(engine)]

if app.debug:
    get_bound_twice = Mock()


def replace() -> None:
    global get_replaced
    get_replaced = Mock()


def references(client, register):
    app.dependency_overrides[get_session] = get_other
    app.dependency_overrides[get_session]()
    register(get_session, session=Depends(get_other))
    get_session.prepare()
    return get_session


async def given_a_session(session: Session):
    """Return the session: this is what the function does with one."""
    return await get_session(session)


async def given_one_by_name(session: Session):
    return await get_session(session=session)


def shadowed_by_a_parameter(get_session, *get_other, **get_made):
    next(get_session())
    next(get_other())


def shadowed_by_keyword_parameters(*, get_session):
    return get_session()


def shadowed_by_an_assignment():
    get_session = contextmanager(lambda: iter([1]))
    with get_session() as session:
        return session


def shadowed_by_unpacking(pair):
    get_session, get_other = pair
    return get_session(), get_other()


def shadowed_by_blocks(contexts):
    with contexts as get_session:
        get_session()
    for get_other in contexts:
        get_other()


def shadowed_by_a_handler():
    try:
        pass
    except ValueError as get_session:
        get_session()


def shadowed_by_a_pattern(subject):
    match subject:
        case {"factory": get_session, **get_other}:
            get_session(), get_other()
        case [*get_deleted]:
            get_deleted()


def shadowed_by_an_import():
    from somewhere import get_session
    from somewhere_else import others as get_other

    return get_session(), get_other()


def shadowed_by_a_walrus(make):
    if get_session := make():
        get_session()


def shadowed_by_a_loop_of_an_expression(factories):
    return [get_session() for get_session in factories]


def shadowed_by_a_parameter_of_a_lambda():
    return lambda get_session: get_session()


def shadowed_further_out(get_session):
    def inner():
        return get_session()

    return inner


def shadowed_and_set_from_within():
    get_local = session_dependency(engine)

    def inner():
        nonlocal get_local
        get_local = Mock()

    inner()
    return get_local()


class Database:
    get_session = Mock()
    shadowed = get_session()
    get_other = Mock()
    other = get_other()

    def get(self, engine):
        """An attribute is another thing than a name of the module."""
        engine.get_session()
        return self.get_session(), Database.get_session(self)


def bound_twice():
    return (
        get_bound_twice(),
        get_replaced(),
        get_unpacked(),
        get_listed(),
        get_deleted(),
    )


def test_what_is_raised():
    with pytest.raises(ScopeMisuse):
        asyncio.run(get_session())
    with pytest.raises(TypeError):
        next(get_session())


def said_in_a_try():
    try:
        asyncio.run(get_session())
    except ScopeMisuse:
        pass
