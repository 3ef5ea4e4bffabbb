"""`safesession check` for programs to read: JSON, SARIF, and annotations of GitHub."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import safesession.lint._rule
from faulty import FAULTY
from safesession.__main__ import main
from safesession.lint._rule import RULES

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("place")]
pytest_plugins = ("check_fixtures",)


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
