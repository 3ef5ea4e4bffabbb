"""Endpoints of each kind with sessions of each kind, WebSockets, background tasks."""

from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket, WebSocketDisconnect
from sqlalchemy import Engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from apps import get, in_thread, read, talk, write
from models import Note, stored

pytestmark = [pytest.mark.anyio, pytest.mark.on("sqlite", "postgresql", "mariadb")]
pytest_plugins = ("fastapi_fixtures",)


async def test_async_endpoint(database: Any, engine: Engine) -> None:
    """An async endpoint reads and writes, and its work is committed."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(session: Annotated[Any, Depends(database.get_session())]) -> Any:
        await write(session)
        return await read(session)

    assert ["kept"] == (await get(app)).json()
    assert ["kept"] == stored(engine)


async def test_sync_endpoint(database: Any, engine: Engine) -> None:
    """A sync endpoint reads and writes, and its work is committed."""
    app = FastAPI()

    @app.get("/")
    def endpoint(session: Annotated[Any, Depends(database.get_session())]) -> Any:
        in_thread(write, session)
        return in_thread(read, session)

    assert ["kept"] == (await get(app)).json()
    assert ["kept"] == stored(engine)


async def test_sync_endpoint_writes_on_commit(database: Any, engine: Engine) -> None:
    """What a sync endpoint only added is flushed and committed all the same."""
    app = FastAPI()

    @app.get("/")
    def endpoint(session: Annotated[Any, Depends(database.get_session())]) -> None:
        session.add(Note(text="kept"))

    assert 200 == (await get(app)).status_code
    assert ["kept"] == stored(engine)


async def test_unused_session(database: Any) -> None:
    """A session that the endpoint does not use asks nothing of the database."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        pass

    events = database.report("checkout", "begin", "commit", "rollback")

    assert 200 == (await get(app)).status_code
    assert [] == events


async def test_work_that_the_endpoint_commits(database: Any, engine: Engine) -> None:
    """What an endpoint has committed stays, whatever it raises later."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        await write(session)
        if (committing := session.commit()) is not None:
            await committing
        await write(session, "lost")
        raise LookupError

    assert 500 == (await get(app)).status_code
    assert ["kept"] == stored(engine)


async def test_objects_of_an_async_session(async_database: Any, engine: Engine) -> None:
    """An object of an async session may be read after the commit, and returned."""
    app = FastAPI()
    get_session = async_database.get_session()

    @app.get("/")
    async def endpoint(session: Annotated[AsyncSession, Depends(get_session)]) -> Any:
        note = Note(text="kept")
        session.add(note)
        await session.commit()
        return {"text": note.text}

    assert {"text": "kept"} == (await get(app)).json()


# WebSockets


async def test_websocket(database: Any, engine: Engine) -> None:
    """A WebSocket's session lasts as long as its endpoint, and is then committed."""
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(
        websocket: WebSocket,
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        await websocket.accept()
        await write(session, await websocket.receive_text())
        await websocket.send_text(str(await read(session)))
        await websocket.close()

    sent = await talk(app, "/", ["kept"])

    assert "['kept']" == sent[1]["text"]
    assert "websocket.close" == sent[2]["type"]
    assert ["kept"] == stored(engine)


async def test_websocket_that_fails(database: Any, engine: Engine) -> None:
    """What is raised in a WebSocket reaches the server, and leaves no row."""
    app = FastAPI()
    raised = LookupError("no")

    @app.websocket("/")
    async def endpoint(
        websocket: WebSocket,
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        await websocket.accept()
        await write(session, "lost")
        raise raised

    with pytest.raises(LookupError) as caught:
        await talk(app, "/", [])

    assert raised is caught.value
    assert [] == stored(engine)


async def test_websocket_whose_client_leaves(database: Any, engine: Engine) -> None:
    """A client that disconnects ends the session like any other exception."""
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(
        websocket: WebSocket,
        session: Annotated[Any, Depends(database.get_session())],
    ) -> None:
        await websocket.accept()
        while True:
            await write(session, await websocket.receive_text())

    with pytest.raises(WebSocketDisconnect):
        await talk(app, "/", ["lost", "lost too"])

    assert [] == stored(engine)


async def test_websocket_that_commits_as_it_goes(database: Any, engine: Engine) -> None:
    """With commit_on the messages before the disconnect are kept."""
    app = FastAPI()
    get_session = database.get_session(commit_on=WebSocketDisconnect)

    @app.websocket("/")
    async def endpoint(
        websocket: WebSocket, session: Annotated[Any, Depends(get_session)]
    ) -> None:
        await websocket.accept()
        while True:
            await write(session, await websocket.receive_text())

    with pytest.raises(WebSocketDisconnect):
        await talk(app, "/", ["first", "second"])

    assert ["first", "second"] == stored(engine)


# Background tasks


async def test_background_task(sync_database: Any, engine: Engine) -> None:
    """A background task that uses the request's session gets a clear error."""
    app = FastAPI()
    get_session = sync_database.get_session()
    errors: list[InvalidRequestError] = []

    def late(session: Session) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            session.add(Note(text="late"))
            session.commit()
        errors.append(caught.value)

    @app.get("/")
    def endpoint(
        session: Annotated[Session, Depends(get_session)], tasks: BackgroundTasks
    ) -> None:
        session.add(Note(text="kept"))
        tasks.add_task(late, session)

    assert 200 == (await get(app)).status_code
    assert "permanently closed" in str(errors[0])
    assert ["kept"] == stored(engine)


async def test_background_task_with_async_session(
    async_database: Any, engine: Engine
) -> None:
    """An async background task that uses the request's session gets it, too."""
    app = FastAPI()
    get_session = async_database.get_session()
    errors: list[InvalidRequestError] = []

    async def late(session: AsyncSession) -> None:
        with pytest.raises(InvalidRequestError) as caught:
            session.add(Note(text="late"))
            await session.commit()
        errors.append(caught.value)

    @app.get("/")
    async def endpoint(
        session: Annotated[AsyncSession, Depends(get_session)], tasks: BackgroundTasks
    ) -> None:
        session.add(Note(text="kept"))
        tasks.add_task(late, session)

    assert 200 == (await get(app)).status_code
    assert "permanently closed" in str(errors[0])
    assert ["kept"] == stored(engine)
