"""A tool whose connection is given up by `return` in `finally`.

A fault: `return` there drops whatever was raised, a failed commit and Ctrl-C included.
"""

from contextlib import contextmanager, suppress

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")


@contextmanager
def get_session():
    session = Session(engine)
    try:
        yield session
        session.commit()
    finally:
        session.close()
        return  # finds SAFE003


@contextmanager
def get_quiet_session():
    with suppress(ValueError), Session(engine) as session:  # finds SAFE002
        yield session
        session.commit()


@contextmanager
def get_session_if_any():
    session = None
    try:
        session = Session(engine)
        yield session
    finally:
        # Nobody knows whether it is ever taken.
        if session is None:
            return
        session.close()
