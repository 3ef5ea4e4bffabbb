"""A file in which `safesession check` finds a fault, and one in which it does not."""

from safesession.lint._rule import RULES

FAULTY = """\
from sqlalchemy.orm import Session


def get_session(engine):
    session = Session(engine)
    try:
        yield session
    finally:
        session.commit()
"""
SOUND = FAULTY.replace("commit", "close")
KNOWN = ", ".join(RULES)
