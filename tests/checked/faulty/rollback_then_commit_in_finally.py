"""A cloud service: rolls back under `except Exception`, and commits in `finally`.

A fault: a cancellation is no Exception. It passes by the rollback, and half of the work
is committed. The second is what another has: a bare `except` that catches everything
comes first, the rollback leaves nothing to commit, and nothing goes wrong.
"""

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

engine = create_async_engine("sqlite+aiosqlite:///app.db")
async_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session():
    async with async_session() as session:
        try:
            yield session
        except Exception:
            await session.rollback()
            raise
        finally:
            await session.commit()  # finds SAFE004
            await session.close()


async def get_db():
    async with async_session() as session:
        try:
            yield session
        except:
            await session.rollback()
            raise
        finally:
            await session.commit()
