"""Tests that leak, and tests that do not, for a pytest with the plugin to run."""

PREAMBLE = """\
import asyncio
import gc
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from safesession import async_session_scope, session_scope
from safesession.testing._faults import Faults

path = Path(__file__).with_name("test.db")
engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, pool_timeout=1)
ONE = text("SELECT 1")
kept = []


"""
# The marked line is the one to be named.
LEAKS = {
    "connection": """
        def test():
            kept.append(engine.connect())  # here
        """,
    "connection_of_function": """
        def opened():
            return engine.connect()  # here

        def test():
            kept.append(opened())
        """,
    "raw_connection": """
        def test():
            kept.append(engine.raw_connection())  # here
        """,
    "collected": """
        def test():
            engine.connect()  # here
            gc.collect()
        """,
    "checked_out_again": """
        @event.listens_for(engine, "checkout")
        def refuse_once(driver_connection, entry, proxy):
            if not kept:
                kept.append("refused")
                raise DisconnectionError

        def test():
            kept.append(engine.connect())  # here
        """,
    "detached": """
        def test():
            connection = engine.connect()  # here
            connection.detach()
            kept.append(connection)
        """,
    "detached_and_collected": """
        def test():
            connection = engine.connect()  # here
            connection.detach()
            del connection
            gc.collect()
            with engine.connect():
                pass
        """,
    "null_pool": """
        null = create_engine(f"sqlite:///{path}", poolclass=NullPool)

        def test():
            kept.append(null.connect())  # here
        """,
    "static_pool": """
        static = create_engine("sqlite://", poolclass=StaticPool)

        def test():
            with static.connect():
                kept.append(static.connect())  # here
        """,
    "thread": """
        def work():
            kept.append(engine.connect())  # here

        def test():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        """,
    "fixture": """
        @pytest.fixture
        def connection():
            return engine.connect()  # here

        def test(connection):
            pass
        """,
    "teardown": """
        @pytest.fixture
        def connect():
            yield
            kept.append(engine.connect())  # here

        def test(connect):
            pass
        """,
    "async_engine_collected": """
        async def work():
            engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
            connection = await engine.connect()  # here
            raw = await connection.get_raw_connection()
            driver_connection = raw.driver_connection
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                del connection, raw
                gc.collect()
            # SQLAlchemy 2.0 cannot, and the interpreter would wait for its thread.
            if not engine.dialect.has_terminate:
                await driver_connection.stop()
            # It tells the loop that it ends, for as long as there is one.
            await asyncio.to_thread(driver_connection._thread.join)

        def test():
            asyncio.run(work())
        """,
    "async_engine": """
        async def connect():
            engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
            connection = await engine.connect()  # here
            kept.append(connection)
            raw = await connection.get_raw_connection()
            kept.append(raw.driver_connection)

        def test():
            asyncio.run(connect())

        @pytest.fixture(scope="module", autouse=True)
        def end():
            # SQLAlchemy 2.0 cannot, and the interpreter would wait for its thread.
            yield
            kept[1].stop()
        """,
}
SESSIONS = {
    "with_connection": (
        """
        def test():
            session = Session(engine)
            session.execute(ONE)  # here
            kept.append(session)
        """,
        " and checked out its connection",
    ),
    "without_connection": (
        """
        def test():
            session = Session(engine)
            session.begin()  # here
            kept.append(session)
        """,
        "",
    ),
    "began_again": (
        """
        def test():
            session = Session(engine)
            session.execute(ONE)
            session.commit()
            session.execute(ONE)  # here
            kept.append(session)
        """,
        " and checked out its connection",
    ),
    "savepoint": (
        """
        def test():
            session = Session(engine)
            session.begin_nested()  # here
            kept.append(session)
        """,
        "",
    ),
    "collected": (
        """
        def test():
            Session(engine).execute(ONE)  # here
            gc.collect()
        """,
        " and checked out its connection, and left it to the garbage collector",
    ),
    "on_a_connection": (
        """
        def test():
            with engine.connect() as connection:
                session = Session(connection)
                session.execute(ONE)  # here
                kept.append(session)
        """,
        "",
    ),
}
CLEAN = {
    "nothing": "pass",
    "scope": """
        with session_scope(engine) as session:
            session.execute(ONE)
        """,
    "async_scope": """
        async def work():
            engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
            async with async_session_scope(engine) as session:
                await session.execute(ONE)
            await engine.dispose()
        asyncio.run(work())
        """,
    "committed": """
        session = Session(engine)
        session.execute(ONE)
        session.commit()
        kept.append(session)
        """,
    "invalidated": """
        connection = engine.connect()
        connection.invalidate()
        kept.append(connection)
        """,
    "invalidated_session": """
        session = Session(engine)
        session.execute(ONE)
        session.invalidate()
        kept.append(session)
        """,
    "detached": """
        connection = engine.connect()
        connection.detach()
        connection.close()
        """,
    "detached_twice": """
        many = create_engine(f"sqlite:///{path}")
        first, second = many.connect(), many.connect()
        second.detach()
        first.detach()
        first.close()
        second.close()
        """,
    "detached_beside_another": """
        static = create_engine("sqlite://", poolclass=StaticPool)
        first, second = static.connect(), static.connect()
        second.detach()
        first.close()
        second.close()
        del first
        gc.collect()
        """,
    "end_interrupted": """
        null = create_engine(f"sqlite:///{path}", poolclass=NullPool)

        @event.listens_for(null, "close")
        def interrupt(driver_connection, entry):
            raise KeyboardInterrupt

        session = Session(null)
        session.execute(ONE)
        with pytest.raises(KeyboardInterrupt):
            session.close()
        del session
        gc.collect()
        """,
    "closing_interrupted": """
        null = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        connection = null.connect()
        with Faults(null, {"close": KeyboardInterrupt()}), suppress(KeyboardInterrupt):
            connection.close()
        kept.append(connection)
        """,
    "collected_when_closed": """
        for _ in range(3):
            connection = engine.connect()
            connection.close()
            del connection
            gc.collect()
        """,
    "pre_ping": """
        pinged = create_engine(f"sqlite:///{path}", pool_pre_ping=True)
        with pinged.connect() as connection:
            driver_connection = connection.connection.driver_connection
        driver_connection.close()
        with pinged.connect():
            pass
        """,
    "static_pool": """
        static = create_engine("sqlite://", poolclass=StaticPool)
        with static.connect() as first:
            with static.connect() as second:
                pass
        first, second = static.connect(), static.connect()
        first.close()
        second.close()
        del first, second
        gc.collect()
        """,
}
