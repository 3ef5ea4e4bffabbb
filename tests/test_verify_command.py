"""`safesession verify`: what it prints of factories, and its exit status."""

import re
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from safesession.__main__ import main

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


def test_verify_prints_a_table_and_tells_by_its_status(
    factories: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Factories stand side by side, and each broken promise has its example."""
    assert main(["verify", "factories:begin", "factories:safe", "--ignore", "3"]) == 1

    printed = capsys.readouterr().out
    assert (
        " 7  After its end the session refuses work                BROKEN  kept\n"
        in (printed)
    )
    assert (
        " 9  A cancelled exit runs to its end                      -       kept\n"
        in (printed)
    )
    assert " 3  The session is closed, its connection back and clean  -       -\n" in (
        printed
    )
    assert (
        "begin\n 1  the block raised an exception, and another one reached" in printed
    )
    assert "safe\n" not in printed.partition("\n")[2]


def test_verify_succeeds_where_all_is_kept(factories: ModuleType) -> None:
    """The exit status is 0 where no promise is broken."""
    assert main(["verify", "factories:safe", "--ignore", "3,9"]) == 0


def test_factories_of_one_name_stand_side_by_side(
    factories: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the last part of the names is the same, a column has the whole name."""
    ignored = "1,2,3,4,5,6,9,10,11,12,13,14,15"
    Path("again.py").write_text("from factories import begin")
    names = ("factories:begin", "again:begin")

    assert main(["verify", *names, "--ignore", ignored]) == 1

    heading = capsys.readouterr().out.partition("\n")[0]
    assert list(names) == heading.split()


def test_crash_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is raised by the code under test is told by status 2, with its traceback."""
    (tmp_path / "crashing.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)

    assert main(["verify", "crashing:get_session"]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_verify_of_an_app_tells_whose_session_it_is(
    factories: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The route stands below the table, also where all is kept."""
    Path("service.py").write_text(
        "from fastapi import Depends, FastAPI\n"
        "from sqlalchemy.orm import Session\n"
        "from factories import safe\n"
        "app = FastAPI()\n"
        "@app.get('/notes')\n"
        "def notes(session: Session = Depends(safe)): pass\n"
    )
    ignored = "1,2,3,4,5,6,9,10,11,13,14,15"

    assert main(["verify", "service:app", "factories:safe", "--ignore", ignored]) == 0

    details = capsys.readouterr().out.partition("\n\n")[2]
    assert details == (
        "app\n    Its session is that of the route /notes, from the function "
        "get_session().\n\n"
    )


def test_verify_finds_what_is_below_a_name(factories: ModuleType) -> None:
    """A name may have dots, and a route is of an app."""
    assert main(["verify", "factories:begin.begin", "--ignore", "1,3,5,6,7"]) == 0


def parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


@pytest.mark.allow_session_leaks(reason="the usual factories leak")
def test_documented_table_is_what_the_command_prints(
    factories: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table of the docs is of the example, on the versions it names or later."""
    page = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
    named = re.findall(r"(FastAPI|SQLAlchemy|SQLModel) (\d[\d.]+\d)", page)
    if any(parts(version(package)) < parts(of) for package, of in named[:3]):
        pytest.skip(f"the table is of {named[:3]}, and here is an older one")
    command = re.search(r"^\$ safesession (verify factories.*)$", page, re.MULTILINE)
    assert command is not None

    main(command[1].split())

    table = capsys.readouterr().out.partition("\n\n")[0]
    assert table in page
