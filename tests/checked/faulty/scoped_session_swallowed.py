"""An API that logs OperationalError around the yield, and does not raise it again.

A fault: a database that goes away in the midst of a request is answered by FastAPI's
"No response returned", and no handler for OperationalError is ever asked.
"""

from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker

SessionLocal = sessionmaker(bind=create_engine("sqlite:///app.db"))


async def get_session():
    session = SessionLocal()
    try:
        session.rollback()
        yield session
    except OperationalError as error:  # finds SAFE002
        print(f"rolled back: {error}")
        session.rollback()
    finally:
        session.close()
