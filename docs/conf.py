"""The documentation site: `nox -s docs` builds it into docs/_build."""

import re
from importlib.metadata import version as version_of
from typing import Any

from docutils import nodes

project = "safesession"
author = "The safesession authors"
# Sphinx has it so.
copyright = f"2026, {author}"  # noqa: A001
version = release = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# What the docstrings write in single backticks is code.
default_role = "code"
add_module_names = False
# Six overloads for each of the scopes tell an editor more than a reader. The docstrings
# say of each argument what it is.
autodoc_typehints = "none"
napoleon_use_ivar = True
# Without it the argument class_ would be shown as class.
strip_signature_backslash = True

html_theme = "furo"
# The grey of the charts, which is read on white, is too dark on the theme's own.
html_theme_options = {"dark_css_variables": {"chart-background": "#000"}}
html_title = project
# The theme's own underlines modules, as if they were links.
pygments_dark_style = "a11y-high-contrast-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
templates_path = ["_templates"]
html_copy_source = False
html_show_sourcelink = False

nitpicky = True

SQLALCHEMY = "https://docs.sqlalchemy.org/en/21"
EXCEPTIONS = "https://docs.python.org/3/library/exceptions.html"
# Names of others, as the docstrings write them. The inventories that intersphinx asks
# for are on the network, where the site is not built.
ELSEWHERE = {
    "sqlalchemy.orm.Session": f"{SQLALCHEMY}/orm/session_api.html",
    "sqlalchemy.ext.asyncio.AsyncSession": f"{SQLALCHEMY}/orm/extensions/asyncio.html",
    "sqlalchemy.exc.DBAPIError": f"{SQLALCHEMY}/core/exceptions.html",
    "sqlalchemy.exc.PendingRollbackError": f"{SQLALCHEMY}/core/exceptions.html",
    **dict.fromkeys(
        ("AssertionError", "Exception", "ImportError", "RuntimeError", "TypeError"),
        EXCEPTIONS,
    ),
}
NAMED_FILE = re.compile(r"^```(python|toml) (\S+)$", re.MULTILINE)


def link_elsewhere(
    app: Any, env: Any, node: nodes.Element, contents: nodes.Node
) -> nodes.Node | None:
    """Link a name of SQLAlchemy's or Python's to where it is documented."""
    name = node.get("reftarget")
    if (page := ELSEWHERE.get(name)) is None:
        return None
    return nodes.reference("", "", contents, internal=False, refuri=f"{page}#{name}")


def show_file_names(app: Any, page: str, content: list[str]) -> None:
    """Have the name of a file, which the tests write, be the caption of its block."""
    content[0] = NAMED_FILE.sub(r"```{code-block} \1\n:caption: \2\n", content[0])


def name_rows(app: Any, page: nodes.document) -> None:
    """Have the first cell of a row be its header: it is read out with the others."""
    for group in page.findall(nodes.tgroup):
        group[0]["stub"] = 1


def setup(app: Any) -> None:
    """Connect what is above; Sphinx calls this."""
    app.connect("missing-reference", link_elsewhere)
    app.connect("source-read", show_file_names)
    app.connect("doctree-read", name_rows)
