"""Generators that commit when the session has been closed.

A fault: the close has rolled everything back, and what is committed is empty.
"""

from collections.abc import Iterator

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")


def after_with() -> Iterator[Session]:
    with Session(engine) as session:
        yield session
    session.commit()  # finds SAFE006


def after_finally() -> Iterator[Session]:
    session = Session(engine)
    try:
        yield session
    finally:
        session.close()
    session.commit()  # finds SAFE006


def twice() -> Iterator[Session]:
    """Commit once more than is needed, which does no harm."""
    with Session(engine) as session:
        yield session
        session.commit()
    session.commit()


def again() -> Iterator[Session]:
    """Use the session once more, as SQLAlchemy allows."""
    with Session(engine) as session:
        yield session
    session.add(object())
    session.commit()
