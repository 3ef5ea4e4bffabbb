"""What the tests of `verify` have in common: an app, and a dependency with a fault."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from safesession import session_scope
from safesession.testing import verify

# What is asked of any unit of work, by number.
UNIT = {1, 2, 3, 4, 5, 6, 7, 15}

leaking = pytest.mark.allow_session_leaks(reason="the factory that is held leaks")


def broken(factory: Any, **options: Any) -> set[int]:
    return set(verify(factory, **options).broken)


def dependency(engine: Engine) -> Callable[[], Iterator[Session]]:
    """Return a dependency that is right but for the session it leaves usable."""

    def get_session() -> Iterator[Session]:
        with session_scope(engine) as session:
            yield session

    return get_session


def async_by_hand(
    async_engine: AsyncEngine,
) -> Callable[[], AsyncIterator[AsyncSession]]:
    """Return the usual async dependency, which an Exception alone rolls back."""

    async def get_session() -> AsyncIterator[AsyncSession]:
        session = AsyncSession(async_engine)
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise
        finally:
            await session.close()

    return get_session


def notes_app(get_session: Any) -> FastAPI:
    app = FastAPI()

    def current_user(session: Annotated[Session, Depends(get_session)]) -> str:
        return "somebody"

    @app.get("/")
    def home() -> None: ...

    @app.get("/notes")
    def notes(user: Annotated[str, Depends(current_user)]) -> None: ...

    @app.get("/faulty")
    def faulty(session: Session = Depends(get_session, scope="request")) -> None: ...

    return app


def unconfigured() -> Session:
    raise NotImplementedError
