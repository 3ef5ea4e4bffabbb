"""How many sessions may be out at once, and what is not counted."""

import asyncio
import threading
from typing import Annotated, Any

import pytest
from anyio import fail_after
from fastapi import Depends, FastAPI, WebSocket
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from apps import get, talk
from safesession import InvalidArgument
from safesession.fastapi import session_dependency
from waiting import Door, MakeEngine

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_other_dependencies")]
pytest_plugins = ("fastapi_fixtures",)


async def test_number_given(make_engine: MakeEngine) -> None:
    """It takes the place of what the pool can give."""
    engine = make_engine(pool_size=5, max_overflow=0)
    door = Door(session_dependency(engine, max_concurrency=2))

    await door.ask(0, 1, 2)
    assert [0, 1] == door.inside
    for number in range(3):
        await door.let_go(number)
    assert [0, 1, 2] == door.inside


@pytest.mark.parametrize(
    "options, arguments",
    [
        pytest.param({"max_concurrency": None}, {}, id="switched off"),
        pytest.param({}, {"max_overflow": -1}, id="overflow without limit"),
        pytest.param({}, {"pool_size": 0}, id="size without limit"),
        pytest.param({}, {"poolclass": NullPool}, id="NullPool"),
        pytest.param({}, {"poolclass": StaticPool}, id="StaticPool"),
    ],
)
async def test_no_limit(
    options: dict[str, Any], arguments: dict[str, Any], make_engine: MakeEngine
) -> None:
    if "poolclass" not in arguments:
        arguments = {"pool_size": 1, "max_overflow": 0, **arguments}
    door = Door(session_dependency(make_engine(**arguments), **options))

    await door.ask(*range(20))

    assert [*range(20)] == door.inside
    for number in range(20):
        await door.let_go(number)


async def test_connection_is_not_limited(make_engine: MakeEngine) -> None:
    """Its sessions take nothing from the pool."""
    engine = make_engine(pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        door = Door(session_dependency(connection))
        await door.ask(0, 1)
        assert [0, 1] == door.inside
        await door.let_go(0)
        await door.let_go(1)


async def test_engine_that_is_disposed_of(make_engine: MakeEngine) -> None:
    """Its limit stays what it was."""
    engine = make_engine(pool_size=1, max_overflow=0)
    door = Door(session_dependency(engine))
    await door.ask(0)
    engine.dispose()

    await door.ask(1)

    assert [0] == door.inside
    await door.let_go(0)
    await door.let_go(1)


async def test_websocket_does_not_wait(make_engine: MakeEngine) -> None:
    """It may be open for days, and hold a connection for moments."""
    engine = make_engine(pool_size=1, max_overflow=0)
    get_session = session_dependency(engine)
    door = Door(get_session)
    await door.ask(0)

    @door.app.websocket("/talk")
    async def echo(
        websocket: WebSocket, session: Annotated[Session, Depends(get_session)]
    ) -> None:
        await websocket.accept()
        await websocket.close()

    with fail_after(5):
        sent = await talk(door.app, "/talk", [])
    assert ["websocket.accept", "websocket.close"] == [each["type"] for each in sent]
    await door.let_go(0)


def test_each_event_loop_has_its_own_limit(make_engine: MakeEngine) -> None:
    engine = make_engine(pool_size=1, max_overflow=0)
    get_session = session_dependency(engine)
    together = threading.Barrier(2, timeout=5)
    app = FastAPI()

    @app.get("/")
    async def endpoint(session: Annotated[Session, Depends(get_session)]) -> None:
        await asyncio.to_thread(together.wait)

    def ask() -> None:
        statuses.append(asyncio.run(get(app)).status_code)

    statuses: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [200, 200] == statuses


@pytest.mark.parametrize(
    "given, named",
    [
        (0, "0"),
        (-1, "-1"),
        (True, "an object of type bool"),
        (2.0, "an object of type float"),
        ("pools", "an object of type str"),
    ],
)
def test_argument_of_the_wrong_kind(given: Any, named: str, engine: Engine) -> None:
    with pytest.raises(InvalidArgument) as raised:
        session_dependency(engine, max_concurrency=given)
    assert str(raised.value) == (
        f"session_dependency() got {named} as max_concurrency. Pass how many sessions "
        "may be out at once, 1 or more; or None for no limit; or 'pool' for as many "
        "as the engine's pool can give."
    )
