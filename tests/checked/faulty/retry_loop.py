"""A context manager that means to run its block again when the database is locked.

A fault: a generator cannot run the block of a `with` again. On the second turn of the
loop Python raises "generator didn't stop after throw()".
"""

from contextlib import contextmanager

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")


@contextmanager
def retrying():
    for _ in range(3):
        with Session(engine) as session:
            try:
                yield session  # finds SAFE001
                session.commit()
                return
            except OperationalError:
                session.rollback()
