"""What is asked of a check: by the command line, or else by pyproject.toml."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from safesession.errors import InvalidArgument

from ._rule import RULES

_TABLE = "[tool.safesession.check]"


@dataclass(frozen=True)
class Settings:
    """Which rules are asked for, and which files are left out."""

    select: frozenset[str] = frozenset(RULES)
    ignore: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    # The patterns are of paths below it.
    root: Path = Path()

    @property
    def codes(self) -> frozenset[str]:
        return self.select - self.ignore

    def is_excluded(self, path: Path) -> bool:
        """Tell whether a pattern is of the path, or of a part of it."""
        path = path.resolve()
        if not path.is_relative_to(self.root.resolve()):
            return False
        parts = path.relative_to(self.root.resolve()).parts
        places = {"/".join(parts[: end + 1]) for end in range(len(parts))} | {*parts}
        return any(
            fnmatch(place, pattern.rstrip("/"))
            for pattern in self.exclude
            for place in places
        )


def codes(given: Iterable[str], place: str) -> frozenset[str]:
    """Return codes of rules, or raise for one that there is not."""
    found = frozenset(given)
    if unknown := found - set(RULES):
        raise InvalidArgument(
            f"{place} names {_listed(unknown)}, which is no rule. The rules are "
            f"{_listed(RULES)}."
        )
    return found


def settings_for(paths: Iterable[Path]) -> Settings:
    """Return the settings of the nearest pyproject.toml above what is checked."""
    first = next(iter(paths)).resolve()
    for directory in [first, *first.parents]:
        file = directory / "pyproject.toml"
        if file.is_file():
            return _read(file)
    return Settings()


def _read(file: Path) -> Settings:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        table: Any = document.get("tool", {}).get("safesession", {}).get("check", {})
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}") from error
    place = f"{_TABLE} of {file}"
    known = [field.name for field in fields(Settings) if field.name != "root"]
    if not isinstance(table, dict):
        raise InvalidArgument(f"{place} is {table!r}. Write a table.")
    settings = cast(dict[str, Any], table)
    if unknown := set(settings) - set(known):
        raise InvalidArgument(
            f"{place} has {_listed(unknown)}, which is no setting. The settings are "
            f"{_listed(known)}."
        )
    for key, value in settings.items():
        if not _is_list_of_strings(value):
            raise InvalidArgument(
                f"{place} has {key} = {value!r}. Write a list of strings."
            )
    return Settings(
        codes(settings.get("select", RULES), f"select in {place}"),
        codes(settings.get("ignore", ()), f"ignore in {place}"),
        frozenset(settings.get("exclude", ())),
        file.parent,
    )


def _is_list_of_strings(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) for one in cast(list[object], value)
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
