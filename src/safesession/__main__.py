"""The command line: `safesession`, or `python -m safesession`."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import InvalidArgument, SafeSessionError
from .lint._command import add_check


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    asked = parser().parse_args(arguments)
    try:
        status: int = asked.run(asked)
    except SafeSessionError as error:
        print(f"safesession: {error}", file=sys.stderr)
        return 2
    except Exception:
        # Python's own status for it would say that a promise is broken.
        traceback.print_exc()
        return 2
    return status


class _Version(argparse.Action):
    """Tell the version; a copy that is not installed has none, and needs none."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"safesession {version('safesession')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return what the command line is parsed by."""
    made = argparse.ArgumentParser("safesession", description=__doc__)
    made.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="show the installed version and exit",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    _add_verify(commands)
    add_check(commands)
    return made


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="hold session factories against the contract",
        description=(
            "Hold session factories against the contract of safesession, and print "
            "which promises each of them keeps. A table is made in the database that "
            "the sessions are bound to, and dropped again. The exit status is 1 where "
            "a promise is broken, and 2 where there is nothing to hold against it."
        ),
    )
    verify.add_argument(
        "factories",
        nargs="+",
        metavar="MODULE:NAME",
        help=(
            "a dependency, a sessionmaker, a callable that returns a context manager, "
            "or a FastAPI app; modules are looked for in this directory too"
        ),
    )
    verify.add_argument(
        "--route", metavar="PATH", help="the route of an app whose session is taken"
    )
    verify.add_argument(
        "--ignore",
        metavar="N,N",
        type=_promises,
        default=frozenset[int](),
        help="numbers of promises that are not asked for",
    )
    verify.set_defaults(run=_verify)


def _verify(asked: argparse.Namespace) -> int:
    from .testing._report import table
    from .testing._verify import verify

    sys.path.insert(0, str(Path.cwd()))
    short = [name.rpartition(":")[2] for name in asked.factories]
    names = short if len({*short}) == len(short) else asked.factories
    reports = {
        name: verify(_load(factory), route=asked.route, ignore=asked.ignore)
        for name, factory in zip(names, asked.factories, strict=True)
    }
    print(table(reports))
    for name, report in reports.items():
        if report.notes or report.broken:
            print(f"{name}\n{report.details()}")
    return int(any(report.broken for report in reports.values()))


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        if not (module and attribute):
            raise ImportError("it names no module and what is in it")
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(
            f"verify found no {name!r}: {error}. Name it as MODULE:NAME, and run the "
            "command where the module can be imported."
        ) from error
    return found


def _promises(text: str) -> frozenset[int]:
    try:
        return frozenset(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError("pass numbers, as in 7,12") from None


if __name__ == "__main__":
    sys.exit(main())
