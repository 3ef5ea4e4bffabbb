"""The rules by their codes, and what a finding is."""

from dataclasses import dataclass
from importlib.metadata import metadata


@dataclass(frozen=True, slots=True)
class Rule:
    """What is looked for."""

    code: str
    name: str
    summary: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What was found, where, what goes wrong, and what to write in its place."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    code: str
    message: str
    replacement: str

    @property
    def rule(self) -> Rule:
        return RULES[self.code]


RULES = {
    rule.code: rule
    for rule in (
        Rule(
            "SAFE001",
            "second-yield",
            "A session generator yields again after an exception.",
        ),
        Rule(
            "SAFE002",
            "swallowed-exception",
            "A session generator catches an exception and does not raise it again.",
        ),
        Rule(
            "SAFE003",
            "return-in-finally",
            "A session generator leaves its finally by return, break or continue.",
        ),
        Rule(
            "SAFE004",
            "commit-in-finally",
            "A session generator commits in finally, whatever was raised.",
        ),
        Rule(
            "SAFE005",
            "commit-missing",
            "An endpoint writes to a session that nobody commits.",
        ),
        Rule(
            "SAFE006",
            "commit-after-close",
            "A session generator commits when it has closed the session.",
        ),
        Rule(
            "SAFE007",
            "open-when-cancelled",
            "A session is ended under `except Exception` only, in async code.",
        ),
        Rule(
            "SAFE008",
            "generator-by-hand",
            "A session generator or dependency is called by hand.",
        ),
        Rule(
            "SAFE009",
            "session-in-background",
            "The session of a request is given to work that outlives the request.",
        ),
        Rule(
            "SAFE010",
            "answered-before-commit",
            "A dependency commits after the client has been answered.",
        ),
        Rule(
            "SAFE011",
            "context-manager-dependency",
            "A dependency is a context manager, and no session.",
        ),
        Rule(
            "SAFE012",
            "replaced-exception",
            "A dependency replaces every exception by one of its own.",
        ),
        Rule(
            "SAFE013",
            "session-unclosed",
            "A dependency returns a session of its own, which nobody closes.",
        ),
        Rule(
            "SAFE014",
            "session-in-stream",
            "A stream uses a session that ends before the response is sent.",
        ),
    )
}


def page_of(rule: Rule) -> str | None:
    """Return the address of a rule's page, if the package says where its docs are."""
    for url in metadata("safesession").get_all("Project-URL", []):
        label, _, address = url.partition(", ")
        if label.lower() == "documentation":
            return f"{address.rstrip('/')}/rules/{rule.code}.html"
    return None
