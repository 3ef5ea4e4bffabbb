"""The engine, and three ways to make a `get_session` of it."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import HTTPException
from sqlalchemy import Engine, create_engine
from sqlmodel import Session

from safesession.fastapi import session_dependency


def open_engine(database_url: str) -> Engine:
    """Return an engine for a SQLite file."""
    return create_engine(
        database_url,
        # One for each of the 40 threads that FastAPI runs endpoints in, so that none
        # of them waits for a connection that another has to be scheduled to return.
        pool_size=40,
        max_overflow=0,
        # SQLite has one writer at a time; this is how long the others wait for it.
        connect_args={"timeout": 30},
    )


def safe(engine: Engine) -> Callable[..., Any]:
    """Return the `get_session` of safesession.

    A delivery that is answered 400 is on record, so its session is committed.
    """
    return session_dependency(engine, class_=Session, commit_on=HTTPException)


def usual(engine: Engine) -> Callable[..., Any]:
    """Return a `get_session` as it is commonly written by hand.

    Since FastAPI 0.118 what stands after the `yield` runs after the response: a commit
    that fails is not heard of by the client, who has its 201. What was written before
    an exception, such as the record beside a 400, is rolled back.
    """

    def get_session() -> Iterator[Session]:
        session = Session(engine)
        try:
            yield session
            session.commit()
        except Exception:
            session.rollback()
            raise
        finally:
            session.close()

    return get_session


def faulty(engine: Engine) -> Callable[..., Any]:
    """Return a `get_session` that yields a second time. Do not copy it.

    Nobody comes back to the second `yield`. Python raises "generator didn't stop after
    throw()" in place of the endpoint's exception, so that every 400 is a 500, and
    `session.close()` is never reached. The rollback has given the connection back by
    then; it would stay out if the session were used again before the second `yield`.
    """

    def get_session() -> Iterator[Session]:
        session = Session(engine)
        try:
            yield session
            session.commit()
        except Exception:
            session.rollback()
            yield session
        session.close()

    return get_session
