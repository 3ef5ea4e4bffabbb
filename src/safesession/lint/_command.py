"""The command `safesession check`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from safesession.errors import InvalidArgument

from ._rule import RULES
from ._settings import codes, settings_for

FORMATS = ("human", "json", "sarif", "github")


def add_check(commands: Any) -> None:
    """Add the command to a parser."""
    check = commands.add_parser(
        "check",
        help="find faults in hand-written session code",
        description=(
            "Read Python files, without running them, and report the session "
            "generators and their uses that go wrong. The exit status is 0 where "
            "nothing is found, 1 where something is, and 2 where a file cannot be read."
        ),
        epilog="The rules: "
        + ", ".join(f"{rule.code} {rule.name}" for rule in RULES.values()),
    )
    check.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        type=Path,
        default=[Path()],
        help="files and directories; this directory, if none is named",
    )
    check.add_argument("--format", choices=FORMATS, default="human")
    for option, what in (("select", "report these alone"), ("ignore", "leave out")):
        check.add_argument(
            f"--{option}",
            metavar="CODE,CODE",
            help=f"{what}, in place of what pyproject.toml says",
        )
    check.set_defaults(run=_check)


def _check(asked: argparse.Namespace) -> int:
    from ._check import check
    from ._print import FORMATS

    for path in asked.paths:
        if not path.exists():
            raise InvalidArgument(
                f"check found no {str(path)!r}. Name files or directories that exist."
            )
    settings = settings_for(asked.paths)
    if asked.select is not None:
        settings = replace(settings, select=codes(asked.select.split(","), "--select"))
    if asked.ignore is not None:
        settings = replace(settings, ignore=codes(asked.ignore.split(","), "--ignore"))
    report = check(asked.paths, settings)
    print(FORMATS[asked.format](report), end="")
    for told in report.unreadable:
        print(f"safesession: not read: {told}", file=sys.stderr)
    return 2 if report.unreadable else int(bool(report.findings))
