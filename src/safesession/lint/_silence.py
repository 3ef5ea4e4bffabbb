"""Findings that a comment silences: `# noqa`, or `# noqa: CODE, CODE`."""

import io
import re
import tokenize

from ._rule import Finding
from ._source import Source

_NOQA = re.compile(
    r"#\s*noqa(?:(?P<colon>\s*:)\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?)?"
    r"(?![\w-])",
    re.IGNORECASE,
)
_EVERY = "every code"


def is_silenced(finding: Finding, silences: dict[int, set[str]]) -> bool:
    """Tell whether a comment names its code, or all, on one of its lines."""
    lines = range(finding.line, finding.end_line + 1)
    return any(silences.get(line, set()) & {finding.code, _EVERY} for line in lines)


def silences_of(source: Source) -> dict[int, set[str]]:
    """Return which codes are silenced on which lines."""
    if "noqa" not in source.text.lower():
        return {}
    readline = io.StringIO(source.text).readline
    return {
        token.start[0]: _codes(token.string)
        for token in tokenize.generate_tokens(readline)
        if token.type == tokenize.COMMENT
    }


def _codes(comment: str) -> set[str]:
    match = _NOQA.search(comment)
    if match is None:
        return set()
    if match["codes"]:
        return {code.upper() for code in re.split(r"[,\s]+", match["codes"])}
    # Codes were meant, and cannot be told.
    return set() if match["colon"] else {_EVERY}
