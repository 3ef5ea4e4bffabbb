"""The public API as the sources spell it, and its record: `tests/public_api.toml`.

`python tests/public_api.py` records it, and needs nothing but Python.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

Definition: TypeAlias = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
)
Entry: TypeAlias = dict[str, str]
Record: TypeAlias = dict[str, Entry]

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "public_api.toml"
COMMAND = "python tests/public_api.py"
HEADER = f"""\
# The public API, as `{COMMAND}` has recorded it: what each public name
# is, with what its signature names of the package's own, and the version of its last
# change. CHANGELOG.md has to name it in the section of that version. Where a text has
# changed, and what it says has not, put `changed` back by hand.
"""


class Package:
    """The sources of a package; nothing of it is imported."""

    def __init__(self, root: Path) -> None:
        self.name = root.name
        self._modules: dict[str, ast.Module] = {}
        for path in sorted(root.rglob("*.py")):
            parts = [root.name, *path.relative_to(root).with_suffix("").parts]
            if parts[-1] == "__init__":
                del parts[-1]
            self._modules[".".join(parts)] = ast.parse(path.read_text(encoding="utf-8"))
        self._packages = {
            ".".join([root.name, *path.relative_to(root).parent.parts])
            for path in root.rglob("__init__.py")
        }

    def public_api(self) -> dict[str, str]:
        """Return what each public name is."""
        return {
            f"{module}.{name}": self._describe(module, name)
            for module in self.public_modules()
            for name in self.public_names(module)
        }

    def public_modules(self) -> list[str]:
        """Return the modules that no underscore keeps private."""
        return [name for name in self._modules if "._" not in name]

    def public_names(self, module: str) -> list[str]:
        """Return what `__all__` has; without it, what is defined there, but hooks."""
        for node in self._modules[module].body:
            if isinstance(node, ast.Assign) and "__all__" in _targets(node):
                names: list[str] = ast.literal_eval(node.value)
                return names
        return [
            node.name
            for node in self._modules[module].body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith(("_", "pytest_"))
        ]

    def _describe(self, module: str, name: str) -> str:
        home, name_there, definitions = self._find(module, name)
        if home != module and home in self.public_modules():
            return f"{home}.{name_there}"
        told = {(home, name_there): "\n".join(map(_spell, definitions))}
        self._tell_names(home, definitions, told)
        return "\n".join(told.values())

    def _tell_names(
        self,
        module: str,
        definitions: list[Definition],
        told: dict[tuple[str, str], str],
    ) -> None:
        for name in sorted(set(_names(map(_skeleton, definitions)))):
            home, name_there, found = self._find(module, name)
            known = home in self.public_modules() and name_there in (
                self.public_names(home)
            )
            if found and not known and (home, name_there) not in told:
                told[home, name_there] = "\n".join(map(_spell, found))
                self._tell_names(home, found, told)

    def _find(self, module: str, name: str) -> tuple[str, str, list[Definition]]:
        """Return in which module a name is defined, as what, and how."""
        found: list[Definition] = []
        for node in _statements(self._modules[module]):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    source = self._source(module, node)
                    if name == (alias.asname or alias.name) and source in self._modules:
                        return self._find(source, alias.name)
            elif name in _targets(node):
                found.append(node)
        return module, name, found

    def _source(self, module: str, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = module.split(".")
        up = node.level - (module in self._packages)
        return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


def load(path: Path = RECORD) -> Record:
    """Return what is recorded."""
    record = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        name: {key: text.strip("\n") for key, text in entry.items()}
        for name, entry in record.items()
    }


def dump(record: Record) -> str:
    """Return the text of a record."""
    entries = [HEADER]
    for name, entry in sorted(record.items()):
        lines = [f'["{name}"]']
        for key, text in entry.items():
            quote, end = ("'''", "\n") if key == "api" else ('"', "")
            lines.append(f"{key} = {quote}{end}{text}{end}{quote}")
        entries.append("\n".join(lines) + "\n")
    return "\n".join(entries)


def renew(record: Record, api: dict[str, str], version: str) -> Record:
    """Return a record of `api`; what differs from the old one has changed now."""
    renewed: Record = {}
    for name in record.keys() | api.keys():
        old = record.get(name, {})
        if name in api and api[name] != old.get("api"):
            renewed[name] = {"changed": version, "api": api[name]}
        elif name in api or "removed" in old:
            renewed[name] = old
        else:
            renewed[name] = {"removed": version}
    return renewed


def difference(record: Record, api: dict[str, str]) -> Iterator[str]:
    """Tell, line by line, in what the API is not as recorded."""
    for name in sorted(record.keys() | api.keys()):
        old = record.get(name, {}).get("api", "").splitlines()
        new = api.get(name, "").splitlines()
        if old != new:
            yield name
            yield from (f"  - {line}" for line in old if line not in new)
            yield from (f"  + {line}" for line in new if line not in old)


def untold(record: Record, changelog: str, version: str) -> list[str]:
    """Return the names that CHANGELOG.md lacks in the section where they belong."""
    headings = re.split(r"^## \[?([\w.]+).*$", changelog, flags=re.MULTILINE)
    sections = dict(zip(headings[1::2], headings[2::2], strict=True))
    missing = []
    for name, entry in sorted(record.items()):
        since = entry.get("changed") or entry["removed"]
        unreleased = sections.get("Unreleased", "") if since == version else ""
        told = " ".join(re.findall(r"`([^`]+)`", sections.get(since, unreleased)))
        # What is told of a name is told of the one with `async_` before it.
        short = name.rpartition(".")[2].removeprefix("async_")
        if not re.search(rf"\b(?:async_)?{short}\b", told):
            missing.append(f"{name} ({since})")
    return missing


def version_in_making() -> str:
    """Return the version that comes next, without what says that it is not out."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return re.match(r"[\d.]*\d", pyproject["project"]["version"])[0]


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Return what a module consists of, and what it does for type checkers alone."""
    for node in tree.body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body


def _targets(node: ast.stmt) -> list[str]:
    """Return the names that a statement binds."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [ast.unparse(target) for target in node.targets]
        case ast.AnnAssign():
            return [ast.unparse(node.target)]
    return []


def _skeleton(node: Definition) -> Definition:
    """Return a definition without what nobody outside of it can see."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            body: list[ast.stmt] = [ast.Expr(ast.Constant(...))]
        case ast.ClassDef():
            body = [*_members(node)] or [ast.Expr(ast.Constant(...))]
        case _:
            return node
    fields = {name: getattr(node, name, None) for name in node._fields}
    if any("fixture" in ast.unparse(decorator) for decorator in node.decorator_list):
        # It is asked for by its name, and what it asks for is its own affair.
        fields["args"] = ast.arguments(
            posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]
        )
    return type(node)(**(fields | {"body": body}))


def _members(node: ast.ClassDef) -> Iterator[ast.stmt]:
    """Return the public members of a class, those that `__init__` sets among them."""
    for member in node.body:
        names = _targets(member)
        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
            if _is_public(member.name):
                yield _skeleton(member)
            if member.name == "__init__":
                yield from _attributes(member)
        elif any(map(_is_public, names)) and names != ["__slots__"]:
            yield member


def _attributes(node: ast.stmt) -> Iterator[ast.stmt]:
    for statement in ast.walk(node):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            for name in _targets(statement):
                if name.startswith("self.") and _is_public(name.removeprefix("self.")):
                    kind = getattr(statement, "annotation", ast.Constant(...))
                    yield ast.AnnAssign(ast.Name(name), kind, simple=1)


def _is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _spell(node: Definition) -> str:
    """Return the text of a definition, with each signature on a line."""
    text = ast.unparse(ast.fix_missing_locations(_skeleton(node)))
    return re.sub(r":\n +\.\.\.(?=\n|$)", "", text).replace("\n\n", "\n").strip("\n")


def _names(definitions: Iterator[Definition]) -> Iterator[str]:
    """Return the names in definitions, also those in annotations that are strings."""
    for definition in definitions:
        for node in ast.walk(definition):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.findall(r"\w+", node.value)


def main() -> None:
    """Record the API, and print what has changed."""
    api = Package(ROOT / "src" / "safesession").public_api()
    old, version = load(), version_in_making()
    print("\n".join(difference(old, api)) or "The public API is as recorded.")
    record = renew(old, api, version)
    RECORD.write_text(dump(record), encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for name in untold(record, changelog, version):
        print(f"CHANGELOG.md has to name {name}.", file=sys.stderr)


if __name__ == "__main__":
    main()
