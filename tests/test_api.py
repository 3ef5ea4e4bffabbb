"""The public API is the one that is recorded, and CHANGELOG.md tells its changes."""

from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

import public_api
import safesession
from public_api import COMMAND, ROOT, Package, difference, load, renew, untold

pytestmark = pytest.mark.once

PACKAGE = Package(Path(safesession.__file__).parent)
SOURCES = {
    "__init__": """
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from ._scope import scope
            from .errors import Refused

        __all__ = ["Refused", "scope"]
        """,
    "_scope": """
        from typing import Generic, TypeVar

        from .errors import Refused

        T = TypeVar("T")
        Bind = int | None
        _LIMIT = 5


        class Base(Generic[T]):
            __slots__ = ("_bind",)

            def close(self) -> None:
                self._close_at_once()


        class scope(Base[T]):
            def __init__(self, bind: "Bind", *, limit: int = 5) -> None:
                self.limit = limit

            def _close_at_once(self) -> None:
                raise Refused
        """,
    "errors": """
        class Refused(Exception):
            \"\"\"It was refused.\"\"\"
        """,
    "plugin": """
        import pytest


        def pytest_configure(config: pytest.Config) -> None: ...


        @pytest.fixture(scope="session")
        def opened(_scope: object) -> object: ...


        async def ready() -> bool: ...
        """,
}
API = {
    "small.Refused": "small.errors.Refused",
    "small.errors.Refused": "class Refused(Exception)",
    "small.plugin.opened": "@pytest.fixture(scope='session')\ndef opened() -> object",
    "small.plugin.ready": "async def ready() -> bool",
    "small.scope": (
        "class scope(Base[T]):\n"
        "    def __init__(self, bind: 'Bind', *, limit: int=5) -> None\n"
        "    self.limit: ...\n"
        "class Base(Generic[T]):\n"
        "    def close(self) -> None\n"
        "T = TypeVar('T')\n"
        "Bind = int | None"
    ),
}
CHANGELOG = """\
# Changelog

## Unreleased

### Added

- `small.scope(..., limit=...)`, and `Refused`.

## [0.1.0] - 2026-12-01

- `opened`, the same with `async_` before it, and ready.
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The sources of a small package."""
    root = tmp_path / "small"
    root.mkdir()
    for name, source in SOURCES.items():
        (root / f"{name}.py").write_text(dedent(source), encoding="utf-8")
    return root


def test_the_public_api_is_as_recorded() -> None:
    """A name, a signature or a base that changes is noticed."""
    differences = "\n".join(difference(load(), PACKAGE.public_api()))

    assert "" == differences, (
        f"The public API is not what tests/public_api.toml has:\n{differences}\n"
        f"If that is meant, record it by `{COMMAND}`, and tell it in CHANGELOG.md."
    )


def test_the_changelog_tells_each_change_of_the_api() -> None:
    """What has changed in a version is named in its section of CHANGELOG.md."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    missing = untold(load(), changelog, public_api.version_in_making())

    assert [] == missing, (
        f"CHANGELOG.md has to name, in the section of the version: {', '.join(missing)}"
    )


def test_what_is_read_is_what_is_imported() -> None:
    """The names that the sources tell are there at run time, and no others."""
    for name in PACKAGE.public_modules():
        module = import_module(name)
        names = PACKAGE.public_names(name)

        assert getattr(module, "__all__", names) == names
        assert [] == [public for public in names if not hasattr(module, public)]


def test_what_is_public(small: Path) -> None:
    """Signatures, bases, public members, and what these name of the package."""
    assert API == Package(small).public_api()


@pytest.mark.parametrize(
    "module, was, becomes, changed",
    [
        ("_scope", "limit: int = 5", "limit: int = 6", {"small.scope"}),
        ("_scope", "limit: int = 5", "limit: float = 5", {"small.scope"}),
        ("_scope", "*, limit", "limit", {"small.scope"}),
        ("_scope", "int | None", "int | str", {"small.scope"}),
        ("_scope", "def close", "def end", {"small.scope"}),
        ("_scope", "self.limit =", "self.most =", {"small.scope"}),
        ("_scope", "scope(Base[T])", "scope(Generic[T])", {"small.scope"}),
        ("_scope", "_LIMIT = 5", "_LIMIT = 6", set()),
        ("_scope", "_close_at_once", "_close_now", set()),
        ("errors", "(Exception)", "(ValueError)", {"small.errors.Refused"}),
        ("errors", "It was", "It has been", set()),
        ("plugin", '"session"', '"module"', {"small.plugin.opened"}),
        ("plugin", "_scope:", "_other:", set()),
        ("plugin", "async def", "def", {"small.plugin.ready"}),
        ("plugin", "ready()", "_ready()", {"small.plugin.ready"}),
        ("__init__", '"Refused", ', "", {"small.Refused"}),
    ],
)
def test_a_change_is_noticed(
    small: Path, module: str, was: str, becomes: str, changed: set[str]
) -> None:
    """What users could notice makes a difference, and what they could not does not."""
    record = renew({}, API, "0.1.0")
    path = small / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    assert was in source
    path.write_text(source.replace(was, becomes), encoding="utf-8")
    api = Package(small).public_api()

    renewed = renew(record, api, "0.2.0")

    assert changed == {
        line for line in difference(record, api) if not line.startswith(" ")
    }
    assert changed == {
        name for name, entry in renewed.items() if "0.1.0" not in entry.values()
    }
    assert [] == [*difference(renewed, api)]


def test_what_is_removed_stays_on_record() -> None:
    """A name that is gone has the version in which it went, and may come again."""
    record = renew({}, API, "0.1.0")
    fewer = {name: text for name, text in API.items() if name != "small.scope"}

    removed = renew(record, fewer, "0.2.0")

    assert {"removed": "0.2.0"} == removed["small.scope"]
    assert removed == renew(removed, fewer, "0.3.0")
    assert "0.3.0" == renew(removed, API, "0.3.0")["small.scope"]["changed"]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Recording what is recorded changes nothing."""
    record = renew({"small.gone": {"removed": "0.1.0"}}, API, "0.1.0")
    path = tmp_path / "record.toml"

    path.write_text(public_api.dump(record), encoding="utf-8")

    assert record == load(path)
    assert public_api.RECORD.read_text(encoding="utf-8") == public_api.dump(load())


def test_what_the_changelog_lacks() -> None:
    """A name counts in backticks alone, and in the section of its version alone."""
    record = {
        "small.scope": {"changed": "0.2.0"},
        "small.Refused": {"removed": "0.2.0"},
        "small.Refuse": {"changed": "0.2.0"},
        "small.plugin.opened": {"changed": "0.2.0"},
        "small.plugin.async_opened": {"changed": "0.1.0"},
        "small.plugin.ready": {"changed": "0.1.0"},
        "small.early": {"changed": "0.0.1"},
    }

    assert [
        "small.Refuse (0.2.0)",
        "small.early (0.0.1)",
        "small.plugin.opened (0.2.0)",
        "small.plugin.ready (0.1.0)",
    ] == untold(record, CHANGELOG, "0.2.0")
