"""What a dependency opens its sessions on."""

import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
import sqlmodel
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from apps import client, get, writing
from models import Base, Note, stored
from safesession import EngineNotConfigured
from safesession.fastapi import async_session_dependency, session_dependency

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)

FACTORIES = (session_dependency, async_session_dependency)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("bind", [None, lambda: None], ids=["None", "callable"])
async def test_missing_bind(factory: Callable[..., Any], bind: Any) -> None:
    """A bind that is missing when a request comes is an EngineNotConfigured."""
    app, seen = writing(factory(bind))

    with pytest.raises(EngineNotConfigured, match=rf"^{factory.__name__}\(\) has no"):
        async with client(app, raising=True) as http:
            await http.get("/")

    assert [] == seen
    assert 500 == (await get(app)).status_code


@pytest.mark.parametrize("factory", FACTORIES)
async def test_missing_ok(
    factory: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """With missing_ok the endpoint has None for a session, and the log a warning."""
    app, seen = writing(factory(None, missing_ok=True))

    assert 200 == (await get(app)).status_code
    assert [None] == seen
    (record,) = [record for record in caplog.records if record.name == "safesession"]
    assert logging.WARNING == record.levelno
    assert f"{factory.__name__}() has no engine" in record.getMessage()


@pytest.mark.parametrize("factory", FACTORIES)
async def test_missing_ok_of_a_request_that_fails(factory: Callable[..., Any]) -> None:
    """An endpoint without a session may raise like one that has one."""
    app = FastAPI()

    @app.get("/")
    async def reject(
        session: Annotated[Any, Depends(factory(None, missing_ok=True))],
    ) -> None:
        raise HTTPException(400)

    assert 400 == (await get(app)).status_code


async def test_callable_is_asked_by_each_request(database: Any, engine: Engine) -> None:
    """A callable bind is asked when a request comes, so it may be configured late."""
    configured: list[Any] = [None]
    app, _ = writing(database.factory(lambda: configured[0]))

    assert 500 == (await get(app)).status_code
    configured[0] = database.bind
    assert 200 == (await get(app)).status_code
    assert ["kept"] == stored(engine)


async def test_sessionmaker(engine: Engine) -> None:
    """A sessionmaker's sessions are its own, with the settings it gives them."""

    class Own(Session):
        pass

    maker = sessionmaker(engine, class_=Own, expire_on_commit=False, info={"a": 1})
    app, seen = writing(session_dependency(maker))

    assert 200 == (await get(app)).status_code
    (session,) = seen
    assert isinstance(session, Own)
    assert ({"a": 1}, False) == (session.info, session.expire_on_commit)
    assert ["kept"] == stored(engine)


async def test_async_sessionmaker(async_engine: AsyncEngine, engine: Engine) -> None:
    """An async_sessionmaker's sessions are its own, with its settings."""

    class Own(AsyncSession):
        pass

    maker = async_sessionmaker(async_engine, class_=Own, expire_on_commit=True)
    app, seen = writing(async_session_dependency(maker))

    assert 200 == (await get(app)).status_code
    (session,) = seen
    assert isinstance(session, Own)
    assert session.sync_session.expire_on_commit
    assert ["kept"] == stored(engine)


async def test_sqlmodel_session(engine: Engine) -> None:
    """With class_ the session is SQLModel's."""
    app = FastAPI()
    get_session = session_dependency(engine, class_=sqlmodel.Session)

    @app.get("/")
    def endpoint(session: Annotated[sqlmodel.Session, Depends(get_session)]) -> Any:
        session.add(Note(text="kept"))
        return session.exec(sqlmodel.select(Note.text)).all()

    assert ["kept"] == (await get(app)).json()
    assert ["kept"] == stored(engine)


async def test_sqlmodel_async_session(
    async_engine: AsyncEngine, engine: Engine
) -> None:
    """With class_ the async session is SQLModel's."""
    app = FastAPI()
    get_session = async_session_dependency(async_engine, class_=SQLModelAsyncSession)

    @app.get("/")
    async def endpoint(
        session: Annotated[SQLModelAsyncSession, Depends(get_session)],
    ) -> Any:
        session.add(Note(text="kept"))
        return (await session.exec(sqlmodel.select(Note.text))).all()

    assert ["kept"] == (await get(app)).json()
    assert ["kept"] == stored(engine)


async def test_connection(make_engine: Callable[..., Engine]) -> None:
    """On a connection the session joins the transaction that its owner will end."""
    engine = make_engine()
    with engine.connect() as connection:
        outer = connection.begin()
        app, _ = writing(session_dependency(connection))

        assert 200 == (await get(app)).status_code
        assert outer.is_active
        assert ["kept"] == list(connection.scalars(select(Note.text)))
        outer.rollback()

    assert [] == stored(engine)


async def test_in_memory_database() -> None:
    """In-memory SQLite with a StaticPool is one database for all threads."""
    engine = create_engine(
        "sqlite://",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False},
    )
    Base.metadata.create_all(engine)
    app, _ = writing(session_dependency(engine))

    assert 200 == (await get(app)).status_code
    assert ["kept"] == stored(engine)
    engine.dispose()
