"""Six ways to open a session, to be held against the contract:

python -m safesession verify factories:double_yield factories:by_hand factories:begin \
    factories:sqlmodel_docs factories:fastapi_docs factories:safe
"""

from collections.abc import Iterator

import sqlmodel
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from safesession.fastapi import session_dependency

# A short timeout, as some of these leave others waiting for a connection.
engine = create_engine("sqlite:///factories.db", pool_timeout=1)


def double_yield() -> Iterator[Session]:
    """Yield once more where an exception should leave. Do not copy it."""
    session = Session(engine)
    try:
        yield session
        session.commit()
    except Exception:
        session.rollback()
        yield session
    session.close()


def by_hand() -> Iterator[Session]:
    """Commit, or roll back and raise, as it is commonly written."""
    session = Session(engine)
    try:
        yield session
        session.commit()
    except Exception:
        session.rollback()
        raise
    finally:
        session.close()


# SQLAlchemy's own: a sessionmaker, whose begin() is taken.
begin = sessionmaker(engine)


def sqlmodel_docs() -> Iterator[sqlmodel.Session]:
    """Close the session; the endpoint is to commit. From SQLModel's documentation."""
    with sqlmodel.Session(engine) as session:
        yield session


def fastapi_docs() -> Iterator[Session]:
    """Close the session; the endpoint is to commit. From FastAPI's documentation."""
    session = Session(engine)
    try:
        yield session
    finally:
        session.close()


safe = session_dependency(engine)
