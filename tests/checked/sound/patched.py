"""A test that puts something else in the place of a dependency of its module's."""

import sys
from unittest.mock import patch

from sqlalchemy import create_engine

from safesession.fastapi import session_dependency

engine = create_engine("sqlite:///app.db")
get_session = session_dependency(engine)
get_db = session_dependency(engine)
get_decorated = session_dependency(engine)
here = sys.modules[__name__]


def test_by_name(monkeypatch):
    monkeypatch.setattr(here, "get_session", lambda: iter([None]))
    assert next(get_session()) is None


def test_by_attribute():
    here.get_db = lambda: iter([None])
    assert next(get_db()) is None


@patch("app.deps.get_decorated")
def test_decorated(patched):
    assert get_decorated() is patched()
