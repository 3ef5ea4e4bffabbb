"""Handlers of which nobody can know, by reading them, that they keep the exception."""

from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

engine = create_engine("sqlite:///app.db")
DEBUG = True


@contextmanager
def raised_in_part():
    with Session(engine) as session:
        try:
            yield session
        except Exception:
            session.rollback()
            if DEBUG:
                raise


@contextmanager
def raised_by_another():
    with Session(engine) as session:
        try:
            yield session
        except Exception as error:
            handle_error(error)


def handle_error(error: Exception) -> None:
    raise RuntimeError from error


@contextmanager
def raised_later():
    failed = None
    with Session(engine) as session:
        try:
            yield session
        except Exception as error:
            failed = error
    if failed:
        raise failed


@contextmanager
def closed_generator():
    with Session(engine) as session:
        try:
            yield session
        except GeneratorExit:
            print("given up")


@contextmanager
def yielded_once_at_most():
    session = None
    try:
        session = Session(engine)
        yield session
    except Exception:
        if session is not None:
            raise
        yield None


@contextmanager
def committed_when_asked():
    session = Session(engine)
    try:
        yield session
    finally:
        if session.info.get("commit"):
            session.commit()
        session.close()


def shards():
    """Yield a session for each shard, to be iterated over: nothing is thrown in."""
    for _ in range(3):
        with Session(engine) as session:
            try:
                yield session
                session.commit()
            except Exception:
                session.rollback()


@pytest.fixture
def session():
    with Session(engine) as session:
        try:
            yield session
        except Exception:
            session.rollback()
        finally:
            session.commit()


@contextmanager
def decided_by_another():
    with Session(engine) as session:
        try:
            yield session
        except Exception as error:
            decide(error)


def decide(error: Exception) -> None:
    raise error


def quoted(session: "Session", other: "1 +", third: "int") -> "None":
    try:
        yield session
    except BaseException:
        session.rollback()
        raise
