"""Generators that yield in two places, whose one `finally` commits for both.

A fault: it is told once, with the most that goes wrong.
"""

from contextlib import contextmanager

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")


@contextmanager
def get_session(is_admin: bool):
    session = Session(engine)
    try:
        if is_admin:
            yield session
        else:
            try:
                yield session
            except Exception:
                session.rollback()
                raise
    finally:
        session.commit()  # finds SAFE004
        session.close()


@contextmanager
def get_rolled_back_first(is_admin: bool):
    session = Session(engine)
    try:
        if is_admin:
            try:
                yield session
            except Exception:
                session.rollback()
                raise
        else:
            yield session
    finally:
        session.commit()  # finds SAFE004
        session.close()


@contextmanager
def get_kept(is_admin: bool):
    session = Session(engine)
    try:
        if is_admin:
            yield session
        else:
            try:
                yield session
            except Exception as error:  # finds SAFE002
                print(error)
    finally:
        session.commit()  # finds SAFE004
        session.close()
