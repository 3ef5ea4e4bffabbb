"""The service commits in each request, and no test finds the notes of another."""

from importlib.metadata import version

import httpx
import pytest
from fastapi.testclient import TestClient
from notes import Note, add_all
from sqlalchemy import select

import safesession


def test_installed_from_a_wheel():
    assert "site-packages" in safesession.__file__
    assert version("safesession")


@pytest.mark.parametrize("times", [1, 2])
def test_add(app, joined_session, times):
    client = TestClient(app)

    assert client.post("/notes?text=first").status_code == 201
    assert client.post("/notes?text=").status_code == 400
    assert joined_session.scalars(select(Note.text)).all() == ["first"]


@pytest.mark.parametrize("bind", ["joined_sessionmaker", "joined_connection"])
def test_add_all(request, joined_session, bind):
    add_all(request.getfixturevalue(bind), ["a", "b"])

    assert joined_session.scalars(select(Note.text)).all() == ["a", "b"]


@pytest.mark.parametrize("times", [1, 2])
async def test_count(async_app, async_joined_session, times):
    async_joined_session.add(Note(text="first"))
    await async_joined_session.commit()

    transport = httpx.ASGITransport(async_app)
    async with httpx.AsyncClient(transport=transport) as client:
        response = await client.get("http://test/count")

    assert response.json() == 1


def test_a_leak_fails(pytester):
    """The ini option fails a test of this project that leaks."""
    pytester.makeini("[pytest]\nno_session_leaks = true")
    pytester.makepyfile(
        """
        from sqlalchemy import create_engine

        def test():
            global connection
            connection = create_engine("sqlite://").connect()
        """
    )

    result = pytester.runpytest_subprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["  test_a_leak_fails.py:5: test() checked out a con*"])
