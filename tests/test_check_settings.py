"""`safesession check` keeps to comments, to its options and to pyproject.toml."""

from pathlib import Path

import pytest

from faulty import FAULTY, KNOWN
from safesession.__main__ import main

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("place")]
pytest_plugins = ("check_fixtures",)


@pytest.mark.parametrize(
    "options, found",
    [
        (["--select", "SAFE004"], True),
        (["--select", "SAFE001,SAFE002"], False),
        (["--ignore", "SAFE004"], False),
        (["--ignore", "SAFE001"], True),
    ],
)
def test_rules_are_chosen(options: list[str], found: bool) -> None:
    """--select and --ignore choose among the rules."""
    assert main(["check", ".", *options]) == found


@pytest.mark.parametrize(
    "comment, found",
    [
        ("# noqa", False),
        ("#noqa: SAFE004", False),
        ("# NOQA : safe004", False),
        ("# noqa: SAFE001, SAFE004 - it is read only", False),
        ("# noqa: E501 SAFE004", False),
        ("# why not  # noqa: SAFE004", False),
        ("# noqa: SAFE001", True),
        ("# noqa: SAFE", True),
        ("# noqa: because", True),
        ("# noqable", True),
        ("'# noqa'", True),
    ],
)
def test_noqa(comment: str, found: bool) -> None:
    """A comment silences what it names, or all."""
    separator = "; " if comment.startswith("'") else "  "
    Path("faulty.py").write_text(
        FAULTY.replace("commit()", f"commit(){separator}{comment}")
    )

    assert main(["check", "."]) == found


def test_noqa_on_another_line() -> None:
    """A comment on a line by itself, or on one above, silences nothing."""
    lines = FAULTY.splitlines()
    Path("faulty.py").write_text("\n".join([*lines[:-1], "  # noqa", lines[-1]]))

    assert main(["check", "."]) == 1


def test_noqa_at_the_end_of_a_call() -> None:
    """Where what is found takes several lines, any of them will do."""
    call = "session.commit(\n        )  # noqa: SAFE004"
    Path("faulty.py").write_text(FAULTY.replace("session.commit()", call))

    assert main(["check", "."]) == 0


@pytest.mark.parametrize(
    "setting, found",
    [
        ('select = ["SAFE001"]', False),
        ('ignore = ["SAFE004"]', False),
        ('exclude = ["faulty.py"]', False),
        ('exclude = ["*lty.py"]', False),
        ('exclude = ["sound.py", "fault"]', True),
        ("", True),
    ],
)
def test_configuration(setting: str, found: bool) -> None:
    """The table of the nearest pyproject.toml counts."""
    Path("pyproject.toml").write_text(f"[tool.safesession.check]\n{setting}\n")

    assert main(["check", "."]) == found


@pytest.mark.parametrize("pattern", ["old", "old/", "app/old", "app/*/faulty.py"])
def test_excluded_directory(pattern: str) -> None:
    """A pattern is of a name, or of a path below the file's directory."""
    below = Path("app/old")
    below.mkdir(parents=True)
    Path("faulty.py").rename(below / "faulty.py")
    Path("pyproject.toml").write_text(
        f"[tool.safesession.check]\nexclude = [{pattern!r}]\n"
    )

    assert main(["check", "app"]) == 0
    # What is named is asked for.
    assert main(["check", "app/old/faulty.py"]) == 1


def test_exclude_is_of_the_project_alone(tmp_path: Path) -> None:
    """A path that is not below the directory of pyproject.toml is not left out."""
    project = tmp_path / "project"
    project.mkdir()
    Path("project/pyproject.toml").write_text(
        '[tool.safesession.check]\nexclude = ["faulty.py"]\n'
    )

    assert main(["check", "project", "."]) == 1


def test_command_line_comes_first() -> None:
    """An option takes the place of the same setting."""
    Path("pyproject.toml").write_text(
        '[tool.safesession.check]\nselect = ["SAFE001"]\n'
    )

    assert main(["check", ".", "--select", "SAFE004"]) == 1


@pytest.mark.parametrize(
    "text, told",
    [
        (
            "[tool.safesession.check]\nselects = []",
            " has selects, which is no setting. The settings are exclude, ignore, sel",
        ),
        (
            '[tool.safesession.check]\nselect = "SAFE001"',
            " has select = 'SAFE001'. Write a list of strings.",
        ),
        (
            "[tool.safesession.check]\nexclude = [1]",
            " has exclude = [1]. Write a list of strings.",
        ),
        (
            '[tool.safesession.check]\nignore = ["SAFE999"]',
            f" names SAFE999, which is no rule. The rules are {KNOWN}.",
        ),
        ("tool.safesession.check = 1", " is 1. Write a table."),
        ("[tool", " cannot be read: Expected ']'"),
    ],
)
def test_mistake_in_the_configuration(
    capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    """A setting that there is not is an error that names those that there are."""
    Path("pyproject.toml").write_text(text)

    assert main(["check", "."]) == 2
    err = capsys.readouterr().err
    assert "pyproject.toml" in err
    assert told in err
