"""What is called a session, and is not SQLAlchemy's."""

from contextlib import contextmanager

import aiohttp
import requests
import sqlite3


class LogSession:
    def write(self, code: int) -> None: ...

    def close(self) -> None: ...


async def get_client():
    async with aiohttp.ClientSession() as session:
        try:
            yield session
        except Exception:
            yield None


@contextmanager
def get_http():
    session = requests.Session()
    try:
        yield session
    except Exception as error:
        print(error)
    finally:
        session.close()


@contextmanager
def log_session():
    session = LogSession()
    try:
        yield session
    except Exception:
        session.write(1)
    finally:
        session.close()


@contextmanager
def get_connection():
    connection = sqlite3.connect("app.db")
    try:
        yield connection
    finally:
        connection.commit()
        connection.close()
