"""The command line, from the command to its exit status."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from safesession.__main__ import main

ROOT = Path(__file__).parents[1]


def status_of(*arguments: str) -> object:
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code


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
    assert "begin\n 1  FrozenInstanceError: cannot assign" in printed
    assert "safe\n" not in printed.partition("\n")[2]


def test_verify_succeeds_where_all_is_kept(factories: ModuleType) -> None:
    """The exit status is 0 where no promise is broken."""
    assert main(["verify", "factories:safe", "--ignore", "3,9"]) == 0


def test_verify_finds_what_is_below_a_name(factories: ModuleType) -> None:
    """A name may have dots, and a route is of an app."""
    assert main(["verify", "factories:begin.begin", "--ignore", "1,3,5,6,7"]) == 0


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
                "safesession: verify found no 'factories': module 'factories' has no "
                "attribute ''. Name it as"
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
    """`safesession` and `python -m safesession` tell of the same commands."""
    script = Path(sys.executable).with_name("safesession")
    helps = [
        subprocess.run(
            [*command, "--help"], check=True, capture_output=True, text=True
        ).stdout
        for command in ([script], [sys.executable, "-m", "safesession"])
    ]

    assert helps[0] == helps[1]
    assert "verify" in helps[0]


def parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


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
