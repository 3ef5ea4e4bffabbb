"""An API that answers whatever goes wrong by a 500 of its dependency's.

A fault: the 404 that an endpoint raises comes by `except Exception` and is answered as
a 500, and so is a validation error. The second lets HTTPException pass, and is sound.
"""

from fastapi import HTTPException
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import sessionmaker

SessionLocal = sessionmaker(create_engine("sqlite:///app.db"))


def get_db():
    db = SessionLocal()
    try:
        yield db
    except Exception as error:
        db.rollback()
        raise HTTPException(500, detail=str(error)) from error  # finds SAFE012
    finally:
        db.close()


def get_careful_db():
    db = SessionLocal()
    try:
        yield db
    except HTTPException:
        db.rollback()
        raise
    except Exception as error:
        db.rollback()
        raise HTTPException(500, "the database failed") from error
    finally:
        db.close()


def get_translated_db():
    db = SessionLocal()
    try:
        yield db
    except SQLAlchemyError as error:
        raise HTTPException(503) from error
    finally:
        db.close()
