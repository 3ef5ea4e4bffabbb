"""Sessions made by what is in no file given: it is called a session, and is committed.

A fault: as in other files, a commit whatever was raised, and an exception that is kept.
From a service with a schema for each tenant, and one whose sessions come of a service.
"""

from contextlib import asynccontextmanager, contextmanager

from tenants import refetch_db_session
from services import get_db_service


@contextmanager
def get_tenant_session(tenant: str):
    session = refetch_db_session(tenant)
    try:
        yield session
    finally:
        session.commit()  # finds SAFE004
        session.close()


@asynccontextmanager
async def session_scope():
    async with get_db_service().with_session() as session:
        try:
            yield session
            await session.commit()
        except Exception:  # finds SAFE002
            await session.rollback()
