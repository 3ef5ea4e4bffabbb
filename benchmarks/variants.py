"""The ways to hold a session that are measured, each as its documentation has it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from fastapi import Depends, FastAPI
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from safesession.fastapi import async_session_dependency, session_dependency

from .by_hand import async_get_session_on, get_session_on

# Each is given an app and an engine, and returns the `Depends` of an endpoint.
Install = Callable[[FastAPI, Any], Any]


@dataclass(frozen=True)
class Variant:
    """A way to hold a session, for either kind of session that it has."""

    name: str
    sync: Install | None
    asyncio: Install | None
    module: str = "safesession"

    @property
    def slug(self) -> str:
        return re.sub(r"\W+", "-", self.name)

    def of(self, session: str) -> Install | None:
        return self.sync if session == "sync" else self.asyncio


def hand_written(scope: Literal["function", "request"]) -> Install:
    """The generator function that is written by hand, as a dependency."""
    return lambda app, engine: Depends(get_session_on(engine), scope=scope)


def async_hand_written(scope: Literal["function", "request"]) -> Install:
    """The same for an async engine."""
    return lambda app, engine: Depends(async_get_session_on(engine), scope=scope)


def safesession(app: FastAPI, engine: Engine) -> Any:
    return Depends(session_dependency(engine))


def async_safesession(app: FastAPI, engine: AsyncEngine) -> Any:
    return Depends(async_session_dependency(engine))


def advanced_alchemy(app: FastAPI, engine: Engine) -> Any:
    from advanced_alchemy.extensions.fastapi import (
        AdvancedAlchemy,
        SQLAlchemySyncConfig,
    )

    config = SQLAlchemySyncConfig(engine_instance=engine, commit_mode="autocommit")
    alchemy = AdvancedAlchemy(config=config, app=app)
    return Depends(alchemy.provide_sync_session())


def async_advanced_alchemy(app: FastAPI, engine: AsyncEngine) -> Any:
    from advanced_alchemy.extensions.fastapi import (
        AdvancedAlchemy,
        AsyncSessionConfig,
        SQLAlchemyAsyncConfig,
    )

    config = SQLAlchemyAsyncConfig(
        engine_instance=engine,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        commit_mode="autocommit",
    )
    alchemy = AdvancedAlchemy(config=config, app=app)
    return Depends(alchemy.provide_async_session())


# These two hand the session out by a name of the module, and have it made by a
# middleware. A dependency asks them for it, so that each endpoint is the same one.
def fastapi_async_sqlalchemy(app: FastAPI, engine: AsyncEngine) -> Any:
    from fastapi_async_sqlalchemy import create_middleware_and_session_proxy

    middleware, db = create_middleware_and_session_proxy()
    app.add_middleware(middleware, custom_engine=engine, commit_on_exit=True)

    async def get_session() -> Any:
        return db.session

    return Depends(get_session)


def context_async_sqlalchemy(app: FastAPI, engine: AsyncEngine) -> Any:
    from context_async_sqlalchemy import DBConnect, db_session
    from context_async_sqlalchemy.fastapi_utils import (
        add_fastapi_http_db_session_middleware,
    )

    connection = DBConnect(
        host="localhost",
        engine_creator=lambda host: engine,
        session_maker_creator=lambda engine: async_sessionmaker(
            engine, expire_on_commit=False
        ),
    )
    add_fastapi_http_db_session_middleware(app)

    async def get_session() -> AsyncSession:
        return await db_session(connection)

    return Depends(get_session)


BASELINE = "hand-written, function scope"
SAFESESSION = "safesession"
VARIANTS = [
    Variant(BASELINE, hand_written("function"), async_hand_written("function")),
    Variant(
        "hand-written, request scope",
        hand_written("request"),
        async_hand_written("request"),
    ),
    Variant(SAFESESSION, safesession, async_safesession),
    Variant(
        "advanced-alchemy",
        advanced_alchemy,
        async_advanced_alchemy,
        "advanced_alchemy",
    ),
    Variant(
        "fastapi-async-sqlalchemy",
        None,
        fastapi_async_sqlalchemy,
        "fastapi_async_sqlalchemy",
    ),
    Variant(
        "context-async-sqlalchemy",
        None,
        context_async_sqlalchemy,
        "context_async_sqlalchemy",
    ),
]


def installed() -> list[Variant]:
    """Return the variants whose package is there."""
    return [variant for variant in VARIANTS if find_spec(variant.module)]


def left_out() -> dict[str, str]:
    """Return which packages are not measured, or not for sync sessions, and why."""
    reasons = {
        "fastapi-sqla": "requires FastAPI before 0.142, also in its newest, 4.0.1"
    }
    for variant in VARIANTS:
        if not find_spec(variant.module):
            reasons[variant.name] = "is not installed"
        elif variant.sync is None:
            reasons[variant.name] = "has no sync sessions, from the rows of those"
    return reasons
