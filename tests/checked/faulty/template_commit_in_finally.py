"""A FastAPI project template: the session of a factory on the app's state.

A fault: an endpoint that writes a row and then raises has its row committed. A commit
that fails leaves the session unclosed, too.
"""

from collections.abc import AsyncGenerator

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request


async def get_db_session(request: Request) -> AsyncGenerator[AsyncSession, None]:
    session: AsyncSession = request.app.state.db_session_factory()
    try:
        yield session
    finally:
        await session.commit()  # finds SAFE004
        await session.close()
