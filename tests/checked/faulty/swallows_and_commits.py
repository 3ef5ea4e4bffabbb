"""A small service on PostgreSQL: prints the exception, rolls back, and goes on.

A fault: the `with` block of the caller ends as if nothing had been raised, so that who
called believes that the work is done. The commit in `finally` commits what a
KeyboardInterrupt leaves half done.
"""

from contextlib import contextmanager

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

engine = create_engine("sqlite:///app.db")
session_maker = sessionmaker(bind=engine, autoflush=True)


@contextmanager
def get_session():
    session = session_maker()
    try:
        yield session
    except Exception as problem:  # finds SAFE002
        print(problem)
        session.rollback()
    finally:
        session.commit()  # finds SAFE004
        session.close()
