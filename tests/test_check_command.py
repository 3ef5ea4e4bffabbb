"""`safesession check`, from the command to its exit status."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import safesession
import safesession.lint._rule
from safesession.__main__ import main
from safesession.lint._rule import RULES

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[1] / "docs"
FAULTY = """\
from sqlalchemy.orm import Session


def get_session(engine):
    session = Session(engine)
    try:
        yield session
    finally:
        session.commit()
"""
SOUND = FAULTY.replace("commit", "close")
KNOWN = ", ".join(RULES)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a directory of two files, one of which is faulty."""
    monkeypatch.chdir(tmp_path)
    Path("faulty.py").write_text(FAULTY)
    Path("sound.py").write_text(SOUND)
    return tmp_path


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
    assert capsys.readouterr().out == "No faults in 1 file.\n"


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


@pytest.mark.parametrize(
    "name", [".venv", ".git", "node_modules", "__pycache__", "build"]
)
def test_directory_that_is_passed_over(name: str) -> None:
    """What is installed or built is nobody's own code, but where it is named."""
    Path(name).mkdir()
    Path("faulty.py").rename(f"{name}/faulty.py")

    assert main(["check", "."]) == 0
    assert main(["check", name]) == 1


def test_file_is_checked_once(capsys: pytest.CaptureFixture[str]) -> None:
    """However often a file is named, it is one."""
    assert main(["check", "faulty.py", ".", "faulty.py"]) == 1
    assert capsys.readouterr().out.endswith("1 fault, in 1 of 2 files.\n")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of objects, with the keys that the docs name."""
    main(["check", ".", "--format", "json"])

    (one,) = json.loads(capsys.readouterr().out)
    assert one.pop("message").startswith("get_session() commits")
    assert one.pop("replacement").startswith("commit behind")
    assert one == {
        "file": "faulty.py",
        "line": 9,
        "column": 9,
        "end_line": 9,
        "end_column": 25,
        "code": "SAFE004",
        "name": "commit-in-finally",
    }


def test_columns_are_of_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """What is before on the line counts by characters, as an editor does."""
    Path("faulty.py").write_text(
        FAULTY.replace("        session.commit()", "        'äöü'; session.commit()"),
        encoding="utf-8",
    )
    main(["check", ".", "--format", "json"])

    (one,) = json.loads(capsys.readouterr().out)
    assert one["column"] == 16


def test_sarif(capsys: pytest.CaptureFixture[str]) -> None:
    """A log as SARIF 2.1.0 requires: each result points to its rule and its place."""
    Path("faulty.py").rename("not so good.py")
    Path("broken.py").write_text("def (")
    main(["check", ".", "--format", "sarif"])

    log = json.loads(capsys.readouterr().out)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == [*RULES]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["message"]["text"].startswith("broken.py:1:5: ")
    (result,) = run["results"]
    assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "SAFE004"
    assert result["level"] == "error"
    assert "Instead: commit behind" in result["message"]["text"]
    (location,) = result["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "not%20so%20good.py"},
        "region": {"startLine": 9, "startColumn": 9, "endLine": 9, "endColumn": 25},
    }


# Of the schema of SARIF 2.1.0: what an object has to have, and may have, of what is
# used. An object may have nothing that its schema does not name.
SARIF = {
    "log": ({"version", "runs"}, {"$schema"}),
    "runs": ({"tool"}, {"columnKind", "invocations", "results"}),
    "tool": ({"driver"}, set()),
    "driver": ({"name"}, {"version", "rules"}),
    "rules": (
        {"id"},
        {
            "defaultConfiguration",
            "fullDescription",
            "help",
            "helpUri",
            "name",
            "shortDescription",
        },
    ),
    "defaultConfiguration": (set(), {"level"}),
    "fullDescription": ({"text"}, set()),
    "help": ({"text"}, set()),
    "shortDescription": ({"text"}, set()),
    "invocations": ({"executionSuccessful"}, {"toolExecutionNotifications"}),
    "toolExecutionNotifications": ({"message"}, {"level"}),
    "message": ({"text"}, set()),
    "results": ({"message"}, {"ruleId", "ruleIndex", "level", "locations"}),
    "locations": (set(), {"physicalLocation"}),
    "physicalLocation": ({"artifactLocation"}, {"region"}),
    "artifactLocation": (set(), {"uri"}),
    "region": (set(), {"startLine", "startColumn", "endLine", "endColumn"}),
}


def objects_of(kind: str, value: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Iterate over the objects of a document, and the property that each is of."""
    if isinstance(value, dict):
        yield kind, value
        for name, inner in value.items():
            yield from objects_of(name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects_of(kind, inner)


def test_sarif_has_what_its_schema_requires(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each object has what it has to, and nothing that the schema does not know."""
    Path("broken.py").write_text("def (")
    main(["check", ".", "--format", "sarif"])

    seen: set[str] = set()
    for kind, found in objects_of("log", json.loads(capsys.readouterr().out)):
        required, known = SARIF[kind]
        seen.add(kind)
        assert required <= set(found) <= required | known
        assert found.get("level", "error") == "error"
        assert "" not in found.values()
        if kind == "region":
            assert all(type(value) is int and value >= 1 for value in found.values())
    assert set(SARIF) == seen


@pytest.mark.parametrize("name", ["ä b.py", "a:b.py", "100%41#?.py"])
def test_sarif_names_a_file_by_its_uri(
    capsys: pytest.CaptureFixture[str], place: Path, name: str
) -> None:
    """A path is a reference as it is given; one that is absolute has its scheme."""
    Path("faulty.py").rename(name)

    for given in (name, str(place / name)):
        main(["check", given, "--format", "sarif"])
        (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        split = urlsplit(uri)
        assert re.fullmatch(r"[\w.~%/:-]+", uri, re.ASCII)
        assert given == unquote(split.path)
        assert split.scheme == ("file" if given != name else "")


@pytest.mark.parametrize(
    "urls, expected",
    [
        (None, None),
        ([], None),
        (["Source, https://example.org/code"], None),
        (
            ["Documentation, https://example.org/docs/"],
            "https://example.org/docs/rules/SAFE001.html",
        ),
    ],
)
def test_sarif_links_to_the_docs_if_the_package_does(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    urls: list[str] | None,
    expected: str | None,
) -> None:
    """A rule's help is its page, where the metadata says where the pages are."""

    class Metadata:
        def get_all(self, name: str, default: object) -> object:
            return default if urls is None else urls

    monkeypatch.setattr(safesession.lint._rule, "metadata", lambda name: Metadata())
    main(["check", ".", "--format", "sarif"])

    rules = json.loads(capsys.readouterr().out)["runs"][0]["tool"]["driver"]["rules"]
    assert rules[0].get("helpUri") == expected


def test_github(capsys: pytest.CaptureFixture[str]) -> None:
    """An annotation has its place, and what would end it is escaped."""
    Path("faulty.py").rename("a,b:100%.py")
    main(["check", ".", "--format", "github"])

    told = capsys.readouterr().out
    assert told.startswith(
        "::error file=a%2Cb%3A100%25.py,line=9,col=9,endLine=9,"
        "title=SAFE004 commit-in-finally::get_session() commits in `finally`: what"
    )
    assert told.count("\n") == 1


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
