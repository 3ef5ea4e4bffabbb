"""A context manager that means to run its block again when the database is locked.

A fault: a generator cannot run the block of a `with` again. On the second turn of the
loop Python raises "generator didn't stop after throw()".
"""

import sys
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


@contextmanager
def yielding_in_finally():
    try:
        with Session(engine) as session:
            yield session
    finally:
        yield None  # finds SAFE001


@contextmanager
def given_up():
    for _ in range(3):
        with Session(engine) as session:
            try:
                yield session
            except OperationalError:  # finds SAFE002
                break


@contextmanager
def once_more():
    while True:
        with Session(engine) as session:
            try:
                yield session  # finds SAFE001
                break
            except OperationalError:
                continue


@contextmanager
def ended():
    with Session(engine) as session:
        try:
            yield session
        except OperationalError:
            sys.exit(1)


@contextmanager
def raised_within():
    with Session(engine) as session:
        try:
            yield session
        except OperationalError:
            try:
                raise
            finally:
                session.rollback()


@contextmanager
def raised_and_caught():
    with Session(engine) as session:
        try:
            yield session
        except OperationalError:
            try:
                raise
            except OperationalError:
                session.rollback()
