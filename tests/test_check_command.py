"""`safesession check`, from the command to its exit status."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import safesession
from faulty import KNOWN, SOUND
from safesession.__main__ import main

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("place")]
pytest_plugins = ("check_fixtures",)

DOCS = Path(__file__).parents[1] / "docs"


def test_finding_is_told_with_its_replacement(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A finding has a line for what goes wrong, and one for what to write."""
    assert main(["check", "."]) == 1

    told, instead, count = capsys.readouterr().out.splitlines()
    assert told.startswith("faulty.py:9:9: SAFE004 get_session() commits in `finally`:")
    assert instead.startswith("    Instead: commit behind the yield")
    assert count == "1 fault, in 1 of 2 files."


def test_this_directory_if_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a path it is asked about where it is run."""
    assert main(["check"]) == 1

    assert capsys.readouterr().out.startswith("faulty.py:9:9: SAFE004 ")


def test_nothing_found(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 0 where nothing is found."""
    assert main(["check", "sound.py"]) == 0
    assert capsys.readouterr().out == "Nothing found in 1 file.\n"


def test_nothing_found_in_several_files(capsys: pytest.CaptureFixture[str]) -> None:
    """How many files there were is told."""
    Path("faulty.py").write_text(SOUND)

    assert main(["check", "."]) == 0
    assert capsys.readouterr().out == "Nothing found in 2 files.\n"


def test_module_runs_without_what_it_reads() -> None:
    """`python -m safesession check` imports no extra, and runs nothing it reads."""
    Path("exploding.py").write_text("raise SystemExit('it was run')")
    code = (
        "import sys; sys.modules['fastapi'] = sys.modules['greenlet'] = None;"
        "from safesession.__main__ import main; sys.exit(main(['check', '.']))"
    )
    source = Path(safesession.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(source)}
    for command in (["-c", code], ["-m", "safesession", "check", "."]):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=environment
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.endswith("1 fault, in 1 of 3 files.\n")


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("broken.py", b"def (", "broken.py:1:5: "),
        ("null.py", b"\0", "null.py"),
        ("latin.py", b"'\xe9'", "latin.py:1:"),
        ("cookie.py", b"# coding: klingon\n", "cookie.py:1:1: unknown encoding"),
        ("deep.py", b"-" * 100_000 + b"1", "deep.py: "),
    ],
)
def test_file_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], name: str, content: bytes, told: str
) -> None:
    """It is told, the others are checked, and the exit status is 2."""
    Path(name).write_bytes(content)

    assert main(["check", "."]) == 2

    out, err = capsys.readouterr()
    assert err.startswith(f"safesession: not read: {told}")
    assert "SAFE004" in out


def test_file_that_may_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    """What the system answers is told."""
    Path("dangling.py").symlink_to("nowhere")

    assert main(["check", "."]) == 2
    told = "safesession: not read: dangling.py: No such file or directory\n"
    assert told == capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, told",
    [
        (
            ["nowhere"],
            "check found no 'nowhere'. Name files or directories that exist.",
        ),
        (
            [".", "--select", "SAFE001,E501"],
            f"--select names E501, which is no rule. The rules are {KNOWN}.",
        ),
        (
            [".", "--ignore", "B,A"],
            f"--ignore names A, B, which is no rule. The rules are {KNOWN}.",
        ),
    ],
)
def test_mistake_is_told(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    """What cannot be checked is told in a line, by status 2."""
    assert main(["check", *arguments]) == 2
    assert f"safesession: {told}\n" == capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [".venv", ".git", "node_modules", "__pycache__", "build", "site-packages"]
)
def test_directory_that_is_passed_over(name: str) -> None:
    """What is installed or built is nobody's own code, but where it is named."""
    Path(name).mkdir()
    Path("faulty.py").rename(f"{name}/faulty.py")

    assert main(["check", "."]) == 0
    assert main(["check", name]) == 1


@pytest.mark.parametrize("below", ["env", "env/lib/app", "tools/env"])
def test_virtual_environment_that_is_passed_over(below: str) -> None:
    """Whatever its name is, it is known by its pyvenv.cfg."""
    directory = Path(below)
    directory.mkdir(parents=True)
    Path("faulty.py").rename(directory / "faulty.py")
    environment = Path("tools/env" if below.startswith("tools") else "env")
    assert main(["check", "."]) == 1

    (environment / "pyvenv.cfg").touch()

    assert main(["check", "."]) == 0
    assert main(["check", str(environment)]) == 1
    assert main(["check", below]) == 1


def test_packages_of_a_virtual_environment_that_is_named() -> None:
    """Its site-packages are read where they are named themselves."""
    packages = Path("env/lib/site-packages")
    packages.mkdir(parents=True)
    Path("env/pyvenv.cfg").touch()
    Path("faulty.py").rename(packages / "faulty.py")

    assert main(["check", "env"]) == 0
    assert main(["check", "env/lib/site-packages"]) == 1


def test_file_is_checked_once(capsys: pytest.CaptureFixture[str]) -> None:
    """However often a file is named, it is one."""
    assert main(["check", "faulty.py", ".", "faulty.py"]) == 1
    assert capsys.readouterr().out.endswith("1 fault, in 1 of 2 files.\n")


def test_one_finding_for_a_line_and_rule(capsys: pytest.CaptureFixture[str]) -> None:
    """What one line does wrong twice is told once."""
    sound = SOUND.replace("engine", "one")
    Path("twice.py").write_text(
        f"{sound}\n{sound.replace('get_session', 'get_other')}\n"
        "pair = next(get_session(1)), next(get_other(1))\nnext(get_other(2))\n"
    )

    assert main(["check", "twice.py"]) == 1

    first, _, second, _, count = capsys.readouterr().out.splitlines()
    assert first.startswith("twice.py:21:8: SAFE008 Nobody holds the generator get_s")
    assert second.startswith("twice.py:22:1: SAFE008 Nobody holds the generator get_o")
    assert count == "2 faults, in 1 of 1 file."


def test_documented_output_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What the docs show of the service there is printed of it."""
    page = (DOCS / "check.md").read_text(encoding="utf-8")
    service = re.search(
        r"^```python service.py\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    shown = re.search(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert service is not None
    assert shown is not None
    Path("service.py").write_text(service[1])

    main(["check", "service.py"])

    assert shown[1] == capsys.readouterr().out
