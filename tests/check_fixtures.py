"""Where the tests of `safesession check` run it."""

from pathlib import Path

import pytest

from faulty import FAULTY, SOUND


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory of two files, one of which is faulty."""
    monkeypatch.chdir(tmp_path)
    Path("faulty.py").write_text(FAULTY)
    Path("sound.py").write_text(SOUND)
    return tmp_path
