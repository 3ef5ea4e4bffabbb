"""The app that is measured: the same endpoints for each variant, behind its name."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Receive, Scope, Send

from .databases import Item, Order
from .variants import Variant

# The kinds of endpoint, by the kind of session that they get.
ENDPOINTS = {
    "sync": ("sync session in def", "sync session in async def"),
    "async": ("async session",),
}
PATHS = {
    "sync session in def": "/def",
    "sync session in async def": "/async-def",
    "async session": "/async",
}
# What a request asks for: the method, the path, and the status of the right answer.
WORK = {
    "rejected, 401": ("GET", "/rejected", 401),
    "invalid, 422": ("GET", "/items/x", 422),
    "SELECT": ("GET", "/items/1", 200),
    "INSERT": ("POST", "/orders?amount=5", 201),
}
GUARDED = ("GET", "/guarded/1", 200)


class ItemRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


def authentication(session_of_request: Any) -> Any:
    """Return a sync dependency that reads with the session of the request."""

    def authenticate(session: Annotated[Session, session_of_request]) -> None:
        session.get_one(Item, 1)

    return Depends(authenticate)


async def reject() -> None:
    raise HTTPException(401)


def of(variant: Variant, session: str, engine: Any) -> FastAPI:
    """Return the app of a variant for one kind of session."""
    app = FastAPI(openapi_url=None)
    install = variant.of(session)
    if install is None:
        raise ValueError(f"{variant.name} has no {session} sessions")
    session_of_request = install(app, engine)
    if session == "sync":
        add_def(app, PATHS["sync session in def"], session_of_request)
        add_async_def(app, PATHS["sync session in async def"], session_of_request)
    else:
        add_async(app, PATHS["async session"], session_of_request)
    return app


# In each of the three, the session is asked for before what rejects the request.
def add_def(app: FastAPI, path: str, session_of_request: Any) -> None:
    """Add the endpoints that have a sync session in `def`."""
    SessionDep = Annotated[Session, session_of_request]

    @app.get(f"{path}/rejected")
    def rejected(session: SessionDep, _: Annotated[None, Depends(reject)]) -> None:
        pass

    @app.get(f"{path}/items/{{item_id}}", response_model=ItemRead)
    def read(item_id: int, session: SessionDep) -> Item:
        return session.get_one(Item, item_id)

    @app.get(
        f"{path}/guarded/{{item_id}}",
        response_model=ItemRead,
        dependencies=[authentication(session_of_request)],
    )
    def read_guarded(item_id: int, session: SessionDep) -> Item:
        return session.get_one(Item, item_id)

    @app.post(f"{path}/orders", status_code=201)
    def write(amount: int, session: SessionDep) -> None:
        session.add(Order(amount=amount))


def add_async_def(app: FastAPI, path: str, session_of_request: Any) -> None:
    """Add the endpoints that have a sync session in `async def`."""
    SessionDep = Annotated[Session, session_of_request]

    @app.get(f"{path}/rejected")
    async def rejected(
        session: SessionDep, _: Annotated[None, Depends(reject)]
    ) -> None:
        pass

    @app.get(f"{path}/items/{{item_id}}", response_model=ItemRead)
    async def read(item_id: int, session: SessionDep) -> Item:
        return session.get_one(Item, item_id)

    @app.get(
        f"{path}/guarded/{{item_id}}",
        response_model=ItemRead,
        dependencies=[authentication(session_of_request)],
    )
    async def read_guarded(item_id: int, session: SessionDep) -> Item:
        return session.get_one(Item, item_id)

    @app.post(f"{path}/orders", status_code=201)
    async def write(amount: int, session: SessionDep) -> None:
        session.add(Order(amount=amount))


def add_async(app: FastAPI, path: str, session_of_request: Any) -> None:
    """Add the endpoints that have an async session."""
    SessionDep = Annotated[AsyncSession, session_of_request]

    @app.get(f"{path}/rejected")
    async def rejected(
        session: SessionDep, _: Annotated[None, Depends(reject)]
    ) -> None:
        pass

    @app.get(f"{path}/items/{{item_id}}", response_model=ItemRead)
    async def read(item_id: int, session: SessionDep) -> Item:
        return await session.get_one(Item, item_id)

    @app.post(f"{path}/orders", status_code=201)
    async def write(amount: int, session: SessionDep) -> None:
        session.add(Order(amount=amount))


class Prefixes:
    """The apps of all variants as one, each below the variant's name."""

    def __init__(self, variants: Iterable[Variant], session: str, engine: Any) -> None:
        self._apps: dict[str, ASGIApp] = {
            variant.slug: of(variant, session, engine)
            for variant in variants
            if variant.of(session)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, slug, rest = scope["path"].split("/", 2)
        scope["path"] = f"/{rest}"
        await self._apps[slug](scope, receive, send)
