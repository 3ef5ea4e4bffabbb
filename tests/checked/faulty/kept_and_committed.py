"""Generators that keep the exception, and commit in `finally`.

A fault: half of the work is committed, and whoever called takes it for all of it, as the
`with` block ends as if nothing had been raised. In the last the exception is rolled back
by an inner `try`, and half of the work is committed after a cancellation alone.
"""

import logging
from contextlib import contextmanager

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)
engine = create_engine("sqlite:///app.db")


@contextmanager
def get_session():
    session = Session(engine)
    try:
        yield session
    except Exception:  # finds SAFE002
        logger.exception("failed")
    finally:
        session.commit()  # finds SAFE004
        session.close()


def get_db():
    session = Session(engine)
    try:
        yield session
    except:  # finds SAFE002
        logger.exception("failed")
    finally:
        session.commit()  # finds SAFE004


@contextmanager
def logged_and_raised():
    session = Session(engine)
    try:
        yield session
    except Exception:
        logger.exception("failed")
        raise
    finally:
        session.commit()  # finds SAFE004


@contextmanager
def rolled_back_within(bind):
    session = Session(bind)
    try:
        try:
            yield session
        except Exception:
            session.rollback()
            raise
    finally:
        session.commit()  # finds SAFE004
