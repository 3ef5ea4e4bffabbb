"""Tests that put something else in the place of a dependency, and call that."""

from unittest.mock import patch

from app import deps


def test_patched(monkeypatch):
    monkeypatch.setattr("app.deps.get_own_session", lambda: iter([None]))
    assert next(deps.get_own_session()) is None
