"""The command line: its help, its arguments, and what it says of a mistake."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import pytest

from safesession.__main__ import main

pytestmark = pytest.mark.once

HELP = """\
usage: safesession [-h] [--version] COMMAND ...

The command line: `safesession`, or `python -m safesession`.

positional arguments:
  COMMAND
    verify    hold session factories against the contract
    check     find faults in hand-written session code

options:
  -h, --help  show this help message and exit
  --version   show the installed version and exit
"""

HELP_OF_VERIFY = """\
usage: safesession verify [-h] [--route PATH] [--ignore N,N]
                          MODULE:NAME [MODULE:NAME ...]

Hold session factories against the contract of safesession, and print which
promises each of them keeps. A table is made in the database that the sessions
are bound to, and dropped again. The exit status is 1 where a promise is
broken, and 2 where there is nothing to hold against it.

positional arguments:
  MODULE:NAME   a dependency, a sessionmaker, a callable that returns a
                context manager, or a FastAPI app; modules are looked for in
                this directory too

options:
  -h, --help    show this help message and exit
  --route PATH  the route of an app whose session is taken
  --ignore N,N  numbers of promises that are not asked for
"""

Run = Callable[..., tuple[object, str, str]]


def status_of(*arguments: str) -> object:
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Run:
    """Return what runs the command in an empty directory: status, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())

    def run(*arguments: str) -> tuple[object, str, str]:
        return status_of(*arguments), *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "arguments, told", [(["-h"], HELP), (["verify", "--help"], HELP_OF_VERIFY)]
)
def test_help(run: Run, arguments: list[str], told: str) -> None:
    """Each command says what it does, and what it takes."""
    assert run(*arguments) == (0, told, "")


@pytest.mark.parametrize(
    "arguments, missing", [([], "COMMAND"), (["verify"], "MODULE:NAME")]
)
def test_what_is_missing(run: Run, arguments: list[str], missing: str) -> None:
    """A command needs its name, and what it is to work on."""
    status, printed, told = run(*arguments)

    assert (status, printed) == (2, "")
    assert f"the following arguments are required: {missing}\n" in told


def test_numbers_of_promises(run: Run) -> None:
    """What is ignored is named by numbers."""
    status, printed, told = run("verify", "module:name", "--ignore", "7;12")

    assert (status, printed) == (2, "")
    assert "argument --ignore: pass numbers, as in 7,12\n" in told


def test_module_of_this_directory_comes_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of the directory where the command is run is the one that is meant."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "sessions.py").write_text("get_session = 'elsewhere'")
    (tmp_path / "sessions.py").write_text("get_session = 1")
    monkeypatch.syspath_prepend(elsewhere)

    status, printed, told = run("verify", "sessions:get_session")

    assert (status, printed) == (2, "")
    assert told.startswith("safesession: verify() got an object of type int. Pass a ")


@pytest.mark.parametrize("name", ["sessions", "sessions:", ":get_session", "sessions."])
def test_name_without_one_of_its_parts(run: Run, tmp_path: Path, name: str) -> None:
    """A name has a module and what is in it, with a colon between them."""
    (tmp_path / "sessions.py").write_text("get_session = 1")

    status, printed, told = run("verify", name)

    assert (status, printed) == (2, "")
    assert told == (
        f"safesession: verify found no {name!r}: it names no module and what is in it. "
        "Name it as MODULE:NAME, and run the command where the module can be "
        "imported.\n"
    )


def test_module_that_cannot_be_imported(run: Run, tmp_path: Path) -> None:
    """The reason is the import's own, also where it is of another module."""
    (tmp_path / "sessions.py").write_text("import nowhere")

    status, _, told = run("verify", "sessions:get_session")

    assert status == 2
    assert told.startswith(
        "safesession: verify found no 'sessions:get_session': No module named 'nowhere'"
    )


@pytest.mark.parametrize(
    "arguments, told",
    [
        (
            ["factories:nobody"],
            (
                "safesession: verify found no 'factories:nobody': module 'factories' "
                "has no attribute 'nobody'. Name it as MODULE:NAME, and run the "
                "command where the module can be imported.\n"
            ),
        ),
        (
            ["nowhere:get_session"],
            (
                "safesession: verify found no 'nowhere:get_session': No module named "
                "'nowhere'. Name it as"
            ),
        ),
        (
            ["factories"],
            (
                "safesession: verify found no 'factories': it names no module and "
                "what is in it. Name it as"
            ),
        ),
        (
            ["factories:safe", "--route", "/notes"],
            (
                "safesession: verify() got route='/notes' beside the function "
                "get_session(). A route is of an app"
            ),
        ),
        (
            ["factories:safe", "--ignore", "8"],
            "safesession: verify() got ignore={8}. Pass numbers of promises",
        ),
        (
            ["factories:safe", "--ignore", "all"],
            "usage: safesession verify",
        ),
    ],
)
def test_mistake_is_told(
    factories: ModuleType,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    """What cannot be held against the contract is told in a line, by status 2."""
    assert status_of("verify", *arguments) == 2
    assert capsys.readouterr().err.startswith(told)


def test_module_and_script_are_one_command() -> None:
    """`safesession` and `python -m safesession` print the same."""
    assert "verify" in printed_by_both("--help")
    assert printed_by_both("--version").startswith("safesession ")


def test_version(run: Run) -> None:
    """Which version is installed is told."""
    assert run("--version") == (0, f"safesession {version('safesession')}\n", "")


def test_version_is_looked_up_where_it_is_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is not installed has none, and checks files all the same."""
    monkeypatch.setattr(Distribution, "discover", lambda **context: iter(()))

    with pytest.raises(PackageNotFoundError):
        run("--version")
    assert run("check", ".") == (0, "Nothing found in 0 files.\n", "")


def printed_by_both(argument: str) -> str:
    """Return what the script and the module print, which is the same."""
    script = Path(sys.executable).with_name("safesession")
    printed = {
        subprocess.run(
            [*command, argument], check=True, capture_output=True, text=True
        ).stdout
        for command in ([script], [sys.executable, "-m", "safesession"])
    }
    [same] = printed
    return same
