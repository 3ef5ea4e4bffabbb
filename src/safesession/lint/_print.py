"""The findings as people read them, and as programs do."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ._check import Report
from ._rule import RULES, Finding, Rule, page_of

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def human(report: Report) -> str:
    """Return a line for each finding, one for its replacement, and the count."""
    lines = [
        f"{one.path}:{one.line}:{one.column}: {one.code} {one.message}\n"
        f"    Instead: {one.replacement}\n"
        for one in report.findings
    ]
    files = _count(report.files, "file")
    if not lines:
        return f"Nothing found in {files}.\n"
    where = len({one.path for one in report.findings})
    return "".join([*lines, f"{_count(len(lines), 'fault')}, in {where} of {files}.\n"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_json(report: Report) -> str:
    """Return a list of objects, one for each finding."""
    return _dumped(
        [
            {
                "file": one.path,
                "line": one.line,
                "column": one.column,
                "end_line": one.end_line,
                "end_column": one.end_column,
                "code": one.code,
                "name": one.rule.name,
                "message": one.message,
                "replacement": one.replacement,
            }
            for one in report.findings
        ]
    )


def sarif(report: Report) -> str:
    """Return a log in the Static Analysis Results Interchange Format, 2.1.0."""
    driver = {
        "name": "safesession",
        "version": version("safesession"),
        "rules": [_sarif_rule(rule) for rule in RULES.values()],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [
            {
                "executionSuccessful": not report.unreadable,
                "toolExecutionNotifications": [
                    {"level": "error", "message": {"text": told}}
                    for told in report.unreadable
                ],
            }
        ],
        "results": [_sarif_result(finding) for finding in report.findings],
    }
    return _dumped({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        # GitHub shows both, and asks for a text of help where there is no page.
        "fullDescription": {"text": rule.summary},
        "help": {
            "text": f"{rule.summary} What is found says what to write in its place. A "
            f"comment, `# noqa: {rule.code}`, on its line silences it."
        },
        "defaultConfiguration": {"level": "error"},
    }
    if page := page_of(rule):
        told["helpUri"] = page
    return told


def _sarif_result(one: Finding) -> dict[str, Any]:
    location = {
        "artifactLocation": {"uri": _uri(Path(one.path))},
        "region": {
            "startLine": one.line,
            "startColumn": one.column,
            "endLine": one.end_line,
            "endColumn": one.end_column,
        },
    }
    return {
        "ruleId": one.code,
        "ruleIndex": [*RULES].index(one.code),
        "level": "error",
        "message": {"text": f"{one.message} Instead: {one.replacement}"},
        "locations": [{"physicalLocation": location}],
    }


def _uri(path: Path) -> str:
    """Return a path as a reference, or with its scheme where it is absolute."""
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def github(report: Report) -> str:
    """Return commands that GitHub Actions makes annotations of."""
    return "".join(
        f"::error file={_property(one.path)},line={one.line},col={one.column},"
        f"endLine={one.end_line},title={_property(f'{one.code} {one.rule.name}')}"
        f"::{_data(f'{one.message} Instead: {one.replacement}')}\n"
        for one in report.findings
    )


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _dumped(document: object) -> str:
    return f"{json.dumps(document, indent=2)}\n"


FORMATS: dict[str, Callable[[Report], str]] = {
    "human": human,
    "json": as_json,
    "sarif": sarif,
    "github": github,
}
