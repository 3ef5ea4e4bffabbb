"""What puts something else in the place of a dependency, for all tests here."""

import pytest


@pytest.fixture(autouse=True)
def patched(monkeypatch):
    monkeypatch.setattr("app.deps.get_own_session", lambda: iter([None]))
