"""What a contributor runs before pushing: `nox`. One session of it: `nox -s lint`."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import nox
from nox.command import CommandFailed
from nox.project import dependency_groups, load_toml, python_versions

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
# A Python that is not there is said and skipped; .ci/run insists on one.
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "lint",
    "types",
    "docs",
    "tests",
    "between",
    "lowest",
    "servers",
    "core",
    "examples",
    "build",
    "plugin",
    "coverage",
    "demo",
]
if not sys.argv[1:]:
    # A plain `nox` runs sessions side by side; one that is named is seen as it runs.
    nox.options.parallel = os.cpu_count()
    nox.options.report = ".nox/report.json"

PYPROJECT = load_toml("pyproject.toml")
PYTHONS = python_versions(PYPROJECT)
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def has_python(version: str) -> bool:
    """Tell whether it is there and runs: what pyenv has in its place may not."""
    if version == THIS_PYTHON:
        return True
    found = shutil.which(f"python{version}")
    if found is None:
        return False
    tried = subprocess.run([found, "-c", ""], capture_output=True)
    return tried.returncode == 0


# Coverage is measured on the newest that is at hand, as Python 3.11 may hang under it.
# A thread that has ended is cleared up by greenlet in a pending call, and coverage, by
# a weak reference, hears of it there. If another one ends then, the tracer is entered
# where a pending call waits, and 3.11 tries in vain, for ever, to run that first.
COVERED = next(filter(has_python, reversed(PYTHONS)), PYTHONS[-1])
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
# The tests need a newer pytest than the plugin, which `plugin` runs with both.
LOWEST_PYTEST, *_ = [pin.replace(">=", "==") for pin in EXTRAS["pytest"]]
LOWEST = [
    requirement.replace(">=", "==")
    for requirements in (PYPROJECT["project"]["dependencies"], *EXTRAS.values())
    for requirement in requirements
    if requirements is not EXTRAS["pytest"]
]


def lowest_of(package: str) -> str:
    """Return the pin of the lowest version that is required."""
    return next(pin for pin in LOWEST if pin.startswith(f"{package}=="))


SQLALCHEMY = {
    "lowest": lowest_of("sqlalchemy"),
    "2.0": "sqlalchemy>=2.0.41,<2.1",
    "2.1": "sqlalchemy>=2.1,<2.2",
}
# In each the exits of yield dependencies are run in another way.
FASTAPI = {
    "lowest": lowest_of("fastapi"),
    "0.141": "fastapi==0.141.*",
    "0.162": "fastapi==0.162.*",
    "newest": "fastapi",
}
# PostgreSQL is for `tests`, which takes long enough, and what is not started by pip's
# means for `servers`.
ON_SQLITE = {"SAFESESSION_TEST_ON": "sqlite"}
ON_POSTGRESQL = {"SAFESESSION_TEST_ON": "sqlite,postgresql"}
ON_SERVERS = {"SAFESESSION_TEST_ON": "mariadb"}
# As tests are named that are parametrized with a driver.
ON_MARIADB = "pymysql or asyncmy"
COMING = sorted({page.stem for page in Path("docs/coming").glob("*.md")} - {"index"})
# What hatchling takes if it is told nothing, so that who builds from the sdist, or from
# the tag, gets the same bytes without being told.
AS_ANYWHERE = {"SOURCE_DATE_EPOCH": "1580601600"}
RELEASING = Path("scripts/releasing.py").absolute()
# They are for the session `docs`, and take as long in any other.
DOCUMENTS = "tests/test_docs.py"
# SQLAlchemy 2.1 goes with SQLModel 0.0.48 and later.
SQLMODEL = {
    "lowest": lowest_of("sqlmodel"),
    "0.0.48": "sqlmodel==0.0.48",
    "newest": "sqlmodel",
}
# SQLAlchemy with SQLModel; and FastAPI with both.
TOGETHER = [("lowest", "lowest"), ("2.0", "newest"), ("2.1", "newest")]
EACH = [(fastapi, *others) for fastapi, others in product(FASTAPI, TOGETHER)]
NEWEST = [("newest", "2.1", "newest")]
BETWEEN = [("0.141", "2.0", "lowest"), ("0.162", "2.1", "0.0.48")]
# What no version of SQLAlchemy or FastAPI changes is tested with the newest alone.
FOR_EACH_VERSION = ("-m", "not once")
with_each_sqlalchemy = nox.parametrize(
    "sqlalchemy",
    [nox.param(pin, id=f"sqlalchemy-{key}") for key, pin in SQLALCHEMY.items()],
)


def with_each(versions: Iterable[tuple[str, str, str]]) -> Callable[[Any], Any]:
    """Run a session with each of these FastAPI, SQLAlchemy and SQLModel."""
    params = [
        nox.param(
            (FASTAPI[fastapi], SQLALCHEMY[sqlalchemy], SQLMODEL[sqlmodel]),
            id=f"fastapi-{fastapi}, sqlalchemy-{sqlalchemy}, sqlmodel-{sqlmodel}",
        )
        for fastapi, sqlalchemy, sqlmodel in versions
    ]
    return nox.parametrize("pins", params)


@nox.session(allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Check the code's style, and its format."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(allow_parallel=True)
def types(session: nox.Session) -> None:
    """Check types by both checkers, and that both report a wrong use."""
    install_package(session, *group("typing"), *group("examples"))
    example = ("examples/webhooks/service", "examples/webhooks/demo.py")
    session.run("mypy", "src", "tests/typing/api.py", *example)
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "safesession")
    session.run("pytest", "--confcutdir=tests/typing", "tests/typing")


@nox.session(allow_parallel=True)
def docs(session: nox.Session) -> None:
    """Build the site, any warning being an error, and run each block of its pages."""
    install_package(session, *group("docs"), *group("tests"))
    strict = ("-n", "-W", "--keep-going", "--fresh-env", "-q")
    session.run("sphinx-build", *strict, "-b", "html", "docs", "docs/_build/html")
    session.run("pytest", DOCUMENTS, *session.posargs)


# Not each Python with each of the pairs, which takes hours: `nox -s exhaustive` has all
# pairs.
@nox.session(python=sorted({*PYTHONS[::2], COVERED}), allow_parallel=True)
@with_each(NEWEST)
def tests(session: nox.Session, pins: tuple[str, ...]) -> None:
    """Run the tests with the newest of what is required."""
    session.env.update(ON_POSTGRESQL)
    install_package(session, *pins, *group("tests"))
    # It takes as long as the tests themselves.
    if session.python == COVERED:
        run_covered(session, f"--ignore={DOCUMENTS}", *session.posargs)
    else:
        session.run("pytest", *FOR_EACH_VERSION, *session.posargs)


@nox.session(python=PYTHONS[1::2], allow_parallel=True)
@with_each(BETWEEN)
def between(session: nox.Session, pins: tuple[str, ...]) -> None:
    """Run the tests with what lies between."""
    install_package(session, *pins, *group("tests"))
    session.run("pytest", *FOR_EACH_VERSION, *session.posargs, env=ON_SQLITE)


@nox.session(python=PYTHONS[0], allow_parallel=True)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of each requirement."""
    install_package(session, *LOWEST, *group("tests"))
    session.run("pytest", *FOR_EACH_VERSION, *session.posargs, env=ON_POSTGRESQL)


@nox.session(python=COVERED, allow_parallel=True)
def servers(session: nox.Session) -> None:
    """Run on MariaDB, Galera and PgBouncer what scripts/install-services.sh is for."""
    pins = (SQLALCHEMY["2.1"], FASTAPI["newest"])
    install_package(session, *pins, *group("tests"))
    session.env.update(ON_SERVERS)
    on_servers = f"{ON_MARIADB} or test_galera or test_pgbouncer"
    run_covered(session, "-k", on_servers, *session.posargs)


@nox.session(python=COVERED, allow_parallel=True)
@with_each_sqlalchemy
def core(session: nox.Session, sqlalchemy: str) -> None:
    """Test the core where SQLAlchemy is installed, and nothing else."""
    # SQLAlchemy 2.0 requires greenlet on most platforms.
    session.install("--no-deps", "-e", ".", sqlalchemy)
    session.install("typing-extensions", *group("core"))
    arguments = ("--confcutdir=tests/core", "tests/core")
    run_covered(session, *arguments, concurrency="thread")


@nox.session(allow_parallel=True)
def examples(session: nox.Session) -> None:
    """Run the tests of the examples."""
    install_package(session, *group("examples"))
    session.run("pytest", "examples", *session.posargs)


@nox.session(allow_parallel=True)
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and check them; run README's example, and the tests."""
    session.install(*group("build"), *PYPROJECT["build-system"]["requires"])
    place = empty_directory(session)
    sdist, wheel = build_twice(session, place / "dist", place)

    # As README has it: installed, and pasted.
    python = clean_python(session, place / "clean", f"{wheel}[fastapi]")
    session.run("python", RELEASING, "example", place)
    with session.chdir(place):
        session.run(python, "service.py", external=True)
        session.run("pip", "--python", python, "install", "-q", "httpx")
        session.run(python, "asked.py", external=True)

    install_package(session, *group("tests"), package=(str(wheel),))
    with session.chdir(unpack(sdist, place / "unpacked")):
        shutil.rmtree("src")
        where = "import safesession; assert 'site-packages' in safesession.__file__"
        session.run("python", "-c", where)
        session.run("python", "-m", "pytest", *FOR_EACH_VERSION, env=ON_SQLITE)


@nox.session(allow_parallel=True)
@nox.parametrize(
    "pytest",
    [nox.param(LOWEST_PYTEST, id="lowest"), nox.param("pytest", id="newest")],
)
def plugin(session: nox.Session, pytest: str) -> None:
    """Run the tests of a project that has the pytest plugin from a wheel."""
    project = Path("tests/plugin_project")
    needed = dependency_groups(load_toml(project / "pyproject.toml"), "tests")
    others = [name for name in needed if not name.startswith("safesession")]
    session.install(".[asyncio,fastapi,pytest]", pytest, *others)
    with session.chdir(project):
        session.run("pytest", "-p", "no:cacheprovider", *session.posargs)
        session.run("pytest", "-p", "no:cacheprovider", "-n", "2", *session.posargs)


# Not beside other sessions, and after them: it reports on what they leave.
@nox.session(python=COVERED)
def coverage(session: nox.Session) -> None:
    """Require that the tests have taken every branch of what runs in production."""
    session.install(*group("core"))
    session.run("coverage", "combine")
    kit = "src/safesession/testing/*,src/safesession/__main__.py"
    session.run("coverage", "report", f"--omit={kit}")
    session.run("coverage", "report", f"--include={kit}", "--fail-under=97")


@nox.session
def demo(session: nox.Session) -> None:
    """Show the faults of hand-written get_sessions, and its absence here."""
    install_package(session, *group("examples"))
    session.run("python", "examples/webhooks/demo.py", *session.posargs)


@nox.session
def verify(session: nox.Session) -> None:
    """Hold the usual session factories against the contract, beside our own."""
    install_package(session, *group("examples"))
    page = Path("docs/verify.md").read_text(encoding="utf-8")
    command = re.search(r"^\$ safesession (verify factories.*)$", page, re.MULTILINE)
    with session.chdir("examples"):
        # It tells by its status that promises are broken.
        session.run("safesession", *command[1].split(), success_codes=[1])
        Path("factories.db").unlink()


@nox.session
@nox.parametrize("page", [nox.param(page, id=page) for page in COMING])
def coming(session: nox.Session, page: str) -> None:
    """Ask what a page of docs/coming is about again; `-- --write` mends its tables."""
    text = Path(f"docs/coming/{page}.md").read_text(encoding="utf-8")
    pins = ["==".join(pin) for pin in re.findall(r"`([\w.-]+)==([\w.]+)`", text)]
    session.install("-e", ".[asyncio,fastapi]", *pins)
    session.run("python", "docs/coming/facts.py", *session.posargs, page)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed beside other ways to hold a session; `-- --help` for more."""
    pins = (SQLALCHEMY["2.1"], FASTAPI["newest"])
    install_package(session, *pins, *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


# Not among the sessions of a plain `nox`, as they take so long.
@nox.session(python=PYTHONS, allow_parallel=True)
@with_each(EACH)
def matrix(session: nox.Session, pins: tuple[str, ...]) -> None:
    """Run the tests on each Python, with each version that changes anything."""
    between(session, pins)


@nox.session
@with_each(EACH)
def exhaustive(session: nox.Session, pins: tuple[str, ...]) -> None:
    """Run the tests with each enumeration complete."""
    install_package(session, *pins, *group("tests"))
    env = {**ON_POSTGRESQL, "SAFESESSION_EXHAUSTIVE": "1"}
    session.run("pytest", *session.posargs, env=env)


@nox.session
def release(session: nox.Session) -> None:
    """Build what is to be uploaded, with its bills of materials, into dist/."""
    session.install(*group("release"), *PYPROJECT["build-system"]["requires"])
    session.run("python", RELEASING, "ready")
    place = empty_directory(session)
    dist = Path("dist").absolute()
    shutil.rmtree(dist, ignore_errors=True)
    _, wheel = build_twice(session, dist, place)
    # One for the core and one for each extra: of what pip installs today.
    core, *_ = wheel.name.partition("-py3")
    packages = {core: wheel} | {f"{core}-{each}": f"{wheel}[{each}]" for each in EXTRAS}
    for name, package in packages.items():
        python = clean_python(session, place / name, str(package))
        session.run(
            *("cyclonedx-py", "environment", "--pyproject", "pyproject.toml"),
            *("--mc-type", "library", "--output-reproducible"),
            *("--output-file", dist / f"{name}.cdx.json", python),
        )
    session.run("python", RELEASING, "checksums", dist)


@nox.session(python=COVERED)
def mutation(session: nox.Session) -> None:
    """Require that a test fails on each change to the package that mutmut makes."""
    # On a machine that has other work too, tests fail for want of time: a mutant that
    # nothing notices can then count as killed, and none the other way.
    install_package(session, *group("tests"), *group("mutation"))
    place = Path(session.create_tmp())
    shutil.rmtree(place)
    for part in ("src", "tests"):
        shutil.copytree(part, place / part)
    shutil.copy("pyproject.toml", place)
    with session.chdir(place):
        session.run("mutmut", "run", *session.posargs, env=ON_POSTGRESQL)
        survivors = surviving_mutants(session)
        if survivors:
            # MariaDB's tests take long, and what they alone can notice is little.
            env = {**ON_SERVERS, "PYTEST_ADDOPTS": f"-k '{ON_MARIADB}'"}
            session.run("mutmut", "run", *survivors, env=env)
            survivors = surviving_mutants(session)
    explained = {
        (survivor["function"], survivor["was"], survivor["is"])
        for survivor in load_toml("tests/mutants.toml")["survivor"]
    }
    found = {*survivors.values()}
    unexplained = found - explained
    for function, was, became in sorted(unexplained):
        told = f"[[survivor]]\nfunction = {function!r}\nwas = {was!r}\nis = {became!r}"
        session.log(f"No test fails on this:\n{told}")
    if not session.posargs:
        for function, was, became in sorted(explained - found):
            session.warn(f"Explained, and no survivor: {function}: {was} -> {became}")
    session.log(f"Survivors: {len(found)}; unexplained: {len(unexplained)}")
    if unexplained:
        session.error(
            "Write a test that fails on each; or, where no user could see a "
            "difference, say why in tests/mutants.toml."
        )


def group(name: str) -> tuple[str, ...]:
    """Return what a dependency group requires."""
    return dependency_groups(PYPROJECT, name)


def install_package(
    session: nox.Session, *others: str, package: Iterable[str] = ("-e", ".")
) -> None:
    """Install the package with its extras, and what else a session needs."""
    *options, path = package
    session.install(*options, f"{path}[{','.join(EXTRAS)}]", *others)


def run_covered(
    session: nox.Session, *arguments: str, concurrency: str | None = None
) -> None:
    """Run pytest, and leave what it covered to the session `coverage`."""
    name = re.sub(r"[^\w.]+", "-", session.name).strip("-")
    for stale in Path().glob(f".coverage.{name}.*"):
        stale.unlink()
    options = [] if concurrency is None else [f"--concurrency={concurrency}"]
    # Not in nox's temporary directory, which would be the tests' own from then on.
    report = Path(".nox", f"{name}.xml").absolute()
    report.unlink(missing_ok=True)
    # Tests record figures, which the family that is the default has no place for.
    written = ("-o", "junit_family=xunit1", f"--junitxml={report}")
    command = ("coverage", "run", *options, "-m", "pytest", *written)
    env = {"COVERAGE_FILE": f".coverage.{name}"}
    try:
        session.run(*command, *arguments, env=env)
    except CommandFailed:
        # Written where pytest has come to its end.
        if report.exists():
            raise
        # As Python 3.11 may: see COVERED.
        session.warn("No test has failed: this run has hung, so it is run once more.")
        session.run(*command, *arguments, env=env)


def empty_directory(session: nox.Session) -> Path:
    """Return a directory of the session's own that has nothing in it."""
    place = Path(session.create_tmp()).absolute()
    shutil.rmtree(place)
    place.mkdir()
    return place


def build_twice(session: nox.Session, dist: Path, place: Path) -> tuple[Path, Path]:
    """Build sdist and wheel, once more from the sdist, and check all that is built."""
    session.run("python", "-m", "build", "--outdir", dist, env=AS_ANYWHERE)
    sdist, wheel = sorted(dist.iterdir(), key=lambda path: path.suffix)
    with session.chdir(unpack(sdist, place / "sources")):
        again = ("--no-isolation", "--outdir", place / "again")
        session.run("python", "-m", "build", *again, env=AS_ANYWHERE)
    session.run("python", RELEASING, "same", dist, place / "again")
    session.run("python", RELEASING, "contents", sdist, wheel)
    session.run("twine", "check", "--strict", sdist, wheel)
    return sdist, wheel


def unpack(sdist: Path, place: Path) -> Path:
    """Return the root of an sdist that is unpacked into a directory."""
    shutil.unpack_archive(sdist, place, filter="data")
    return place / sdist.name.removesuffix(".tar.gz")


def clean_python(session: nox.Session, place: Path, package: str) -> str:
    """Return the Python of an environment that has a package, and what it requires."""
    session.run("python", "-m", "venv", "--without-pip", place)
    python = str(place / "bin" / "python")
    session.run("pip", "--python", python, "install", "-q", package)
    return python


def surviving_mutants(session: nox.Session) -> dict[str, tuple[str, str, str]]:
    """Print mutmut's score; return the survivors, by name: function and both texts."""
    listed = str(session.run("mutmut", "results", "--all", "true", silent=True))
    statuses = dict(re.findall(r"^ +(\S+): (.+)$", listed, re.MULTILINE))
    counts = Counter(statuses.values())
    # Not a "timeout": pytest ends a test that hangs, and that kills.
    killed = counts["killed"] + counts["segfault"]
    tested = counts.total() - counts["not checked"]
    session.log(f"{dict(counts)}: a score of {killed / tested:.1%}")
    survivors: dict[str, tuple[str, str, str]] = {}
    for name, status in statuses.items():
        if status in ("killed", "segfault", "not checked"):
            continue
        diff = str(session.run("mutmut", "show", name, silent=True, log=False))
        lines = re.findall(r"^([-+])(?!\1\1) *(.*)", diff, re.MULTILINE)
        was, became = (
            " ".join(text for sign, text in lines if sign == wanted) for wanted in "-+"
        )
        # mutmut names a method module.xǁClassǁmethod__mutmut_1.
        function = re.sub(r"\bx[_ǁ](?=\w+__mutmut_\d+$)|__mutmut_\d+$", "", name)
        survivors[name] = (function.replace("ǁ", "."), was, became)
    return survivors
