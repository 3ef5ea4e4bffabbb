"""What is installed: what it imports, what it asks for, what it says of itself."""

import re
import subprocess
import sys
from importlib.metadata import distribution, metadata, requires
from importlib.resources import files
from types import ModuleType

import pytest

import safesession
import safesession.errors
import safesession.fastapi
import safesession.retry
import safesession.testing

pytestmark = pytest.mark.once


def run(code: str) -> str:
    """Return what a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def test_import_pulls_in_nothing_but_sqlalchemy() -> None:
    """The core imports SQLAlchemy, the standard library and itself."""
    # SQLAlchemy 2.0 imports greenlet of its own accord, where it is installed.
    before = set(run("import sys, sqlalchemy.orm; print(*sys.modules)").split())
    after = set(run("import sys, safesession; print(*sys.modules)").split())

    imported = {name.partition(".")[0] for name in after - before}

    assert {"safesession"} == imported - sys.stdlib_module_names - {"sqlalchemy"}
    assert "sqlalchemy.ext.asyncio" not in after
    assert "safesession._aio" not in after
    assert "safesession.fastapi" not in after


def test_the_pytest_plugin_does_not_import_sqlalchemy() -> None:
    """A run of pytest that has no use for the plugin does not pay for it."""
    told = run(
        """if True:
        import sys
        from importlib.metadata import entry_points
        (plugin,) = entry_points(group="pytest11", name="safesession")
        print(plugin.load().__name__, "sqlalchemy" in sys.modules)
        """
    )

    assert "safesession.testing.plugin False" == told.strip()


@pytest.mark.parametrize(
    "absent, wanted, extra",
    [
        ("greenlet", "from safesession import async_session_scope", "asyncio"),
        ("fastapi", "import safesession.fastapi", "fastapi"),
        (
            "greenlet",
            "from safesession.fastapi import *; async_session_dependency(None)",
            "asyncio",
        ),
        ("hypothesis", "from safesession.testing import exceptions", "hypothesis"),
        ("stamina", "import safesession.retry", "retry"),
        (
            "greenlet",
            "from safesession.retry import *; async_in_session(None)",
            "asyncio",
        ),
    ],
)
def test_an_absent_extra_is_named(absent: str, wanted: str, extra: str) -> None:
    """Asking for what an absent extra provides names the extra, which there is."""
    told = run(
        f"""if True:
        import sys
        sys.modules[{absent!r}] = None
        import safesession
        try:
            {wanted}
        except safesession.MissingExtra as error:
            print(error)
        """
    )

    assert f"{absent}, which is not installed" in told
    assert f"pip install 'safesession[{extra}]'" in told
    assert extra in metadata("safesession").get_all("Provides-Extra", [])


def test_retry_works_without_fastapi() -> None:
    """A worker without a web needs none for the work that it runs again."""
    told = run(
        """if True:
        import sys
        sys.modules["fastapi"] = sys.modules["starlette"] = None
        from safesession.retry import in_session
        print(in_session(lambda: None)(len).__name__)
        """
    )

    assert "len" == told.strip()


def test_fastapi_part_works_without_greenlet() -> None:
    """A service with sync sessions needs no greenlet."""
    told = run(
        """if True:
        import sys
        sys.modules["greenlet"] = None
        from safesession.fastapi import session_dependency
        session_dependency(lambda: None)
        print("sqlalchemy.ext.asyncio" in sys.modules)
        """
    )

    assert "False" == told.strip()


@pytest.mark.parametrize(
    "module",
    [
        safesession,
        safesession.errors,
        safesession.fastapi,
        safesession.retry,
        safesession.testing,
    ],
)
def test_public_names(module: ModuleType) -> None:
    """Each public name is there, in order, and says when it was added."""
    names = module.__all__

    assert sorted(names) == names
    for name in names:
        assert ".. versionadded:: " in getattr(module, name).__doc__, name


def test_public_errors_are_those_of_the_errors_module() -> None:
    """Each error is to be had from the package itself."""
    assert set(safesession.errors.__all__) <= set(safesession.__all__)


def test_unknown_name() -> None:
    """A name that is not there is an AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="'safesession' has no attribute 'scope'"):
        _ = safesession.scope


def test_types_are_shipped() -> None:
    """Type checkers are told that the package is typed."""
    assert files("safesession").joinpath("py.typed").is_file()


def test_metadata() -> None:
    """The metadata is complete, and its classifiers agree with the rest of it."""
    told = metadata("safesession")
    pythons = re.findall(
        r"Programming Language :: Python :: (3\.\d+)",
        "\n".join(told.get_all("Classifier", [])),
    )

    assert f">={pythons[0]}" == told["Requires-Python"]
    assert [f"3.{11 + n}" for n in range(len(pythons))] == pythons
    assert "MIT" == told["License-Expression"]
    assert ["LICENSE"] == told.get_all("License-File")
    assert "text/markdown" == told["Description-Content-Type"]
    assert told["Summary"]
    assert told["Author"]
    assert told["Keywords"]


def test_classifiers() -> None:
    """What an index lists the package under; the licence has a field of its own."""
    told = metadata("safesession").get_all("Classifier", [])

    assert sorted(told) == told
    assert {
        "Framework :: AsyncIO",
        "Framework :: FastAPI",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Database",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    } <= set(told)
    assert not any(classifier.startswith("License ::") for classifier in told)


def test_no_url_is_made_up() -> None:
    """The project has no public address yet: the first one is to be listed here."""
    told = metadata("safesession")

    assert [] == told.get_all("Project-URL", [])
    assert "Home-page" not in told


def test_extras() -> None:
    """Each extra brings what it is named for, from some version on, without a cap."""
    found: dict[str, set[str]] = {}
    for requirement in requires("safesession") or []:
        pattern = r"([\w\[\]-]+)>=[\d.]+(?:; extra == '(\w+)')?"
        name, extra = re.fullmatch(pattern, requirement.replace('"', "'")).groups()
        found.setdefault(extra or "", set()).add(name)

    assert {
        "": {"sqlalchemy"},
        "asyncio": {"sqlalchemy[asyncio]"},
        "fastapi": {"fastapi"},
        "hypothesis": {"hypothesis"},
        "pytest": {"pytest"},
        "retry": {"stamina"},
        "sqlmodel": {"sqlmodel"},
    } == found
    extras = metadata("safesession").get_all("Provides-Extra", [])
    assert found.keys() - {""} == set(extras)


def test_entry_points() -> None:
    """The pytest plugin and the command are there, and nothing else is hooked in."""
    found = {
        (point.group, point.name): point
        for point in distribution("safesession").entry_points
    }

    assert {("console_scripts", "safesession"), ("pytest11", "safesession")} == set(
        found
    )
    assert all(point.load() for point in found.values())
