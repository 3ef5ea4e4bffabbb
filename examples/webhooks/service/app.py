"""The application: `uvicorn --factory service.app:create_app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlmodel import Session, SQLModel

from safesession import session_scope
from safesession.fastapi import add_exception_handlers

from . import sessions
from .intake import reject, store
from .payload import BadDelivery, parse


async def read_body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(read_body)]


def answer(stored: bool) -> JSONResponse:
    if stored:
        return JSONResponse({"detail": "Stored"}, status_code=201)
    return JSONResponse({"detail": "Known already"}, status_code=200)


def create_app(
    database_url: str = "sqlite:///webhooks.db",
    session: Literal["safe", "usual", "faulty"] = "safe",
) -> FastAPI:
    """Return the service on a SQLite file, with the `get_session` asked for."""
    engine = sessions.open_engine(database_url)
    SQLModel.metadata.create_all(engine)
    get_session = getattr(sessions, session)(engine)
    SessionDep = Annotated[Session, Depends(get_session)]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    app = FastAPI(title="Webhooks", lifespan=lifespan)
    app.state.engine = engine
    add_exception_handlers(app)

    @app.post("/webhooks")
    def receive(body: Body, session: SessionDep) -> JSONResponse:
        """Take a delivery in: 201, 200 if it came before, 400 if it is bad."""
        try:
            with session_scope(session):  # all of the delivery, or nothing of it
                stored = store(session, parse(body))
        except BadDelivery as problem:
            reject(session, body, problem)
            raise HTTPException(400, str(problem)) from problem
        return answer(stored)

    @app.post("/webhooks/raised-late")
    def receive_and_raise_late(body: Body) -> JSONResponse:
        """Do the same without a dependency, and raise when all is committed."""
        rejection = None
        with session_scope(engine, class_=Session) as session:
            try:
                with session_scope(session):
                    stored = store(session, parse(body))
            except BadDelivery as problem:
                reject(session, body, problem)
                rejection = HTTPException(400, str(problem))
        if rejection is not None:
            raise rejection
        return answer(stored)

    return app
