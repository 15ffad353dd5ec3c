"""Phrases that readers had to decode stay out of what people read.

Print all that are found: ``python tests/test_voice.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What to avoid -> what to write.
MARKERS = {
    r"\balone\b": "only",
    r"(?<!there\s)\b(?:is|are|was|were) no\b(?! longer)": "is not a, or: has no",
    r"\blikewise\b": "also, or: in the same way",
    r"\bwhatever\b": "every, or: for all",
    r"\bto be had\b": "available",
    r"\bnor (?:do|does|is|are|was|were|has|have|can|may|a|an|its)\b": "does not",
    r"\bas apt\b": "as useful",
    r"\bask(?:s|ed)? for\b": "needs, requires, or: on request",
    r"\bmay not be\b": "cannot be, or: must not be",
    r"\bknows? no\b": "does not know",
    r"\bwhere (?:that|this) is\b": "if",
    r"\bof one's own\b": "your own",
    r"\b(?:is|are) told\b": "is given",
    r"\basks of\b": "requires of",
    r"\bexample stands\b": "example is",
    r"\b(?:bits|bytes|dot|label|line|number|once|one|probability|row|value|weight)s? an? "
    r"(?:channel|class|epoch|face|image|landmark|line|method|point|process|row|run|sample|seed)\b":
        "per",
}  # fmt: skip

#: Places that keep a phrase: file -> the words.
ALLOWED: dict[str, set[str]] = {
    # "neither ... nor a" is plain.
    "docs/find_wrong_labels.md": {"nor a"},
}

FOLDERS = {
    "docs": ("*.md", "*.py"),
    "plugins": ("*.md", "src/**/*.py", "*.toml"),
    "examples": ("*.py", "*.html", "*.yaml"),
    "src": ("*.py", "*.txt", "*.html"),
}


def files():
    """Return what a person reads: text and code of the package, its docs and its plugins."""
    found = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile")]
    for folder, patterns in FOLDERS.items():
        found += [path for pattern in patterns for path in (ROOT / folder).rglob(pattern)]
    hidden = {"__pycache__", "node_modules", "build", "dist"}
    return sorted({path for path in found if not hidden & set(path.parts)})


def violations(text):
    """Return line, words and advice of each phrase, also where a line break parts its words."""
    found = []
    for pattern, advice in MARKERS.items():
        words = re.compile(pattern.replace(" ", r"\s+(?:#:?\s+)?"), re.IGNORECASE)
        for match in words.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, re.sub(r"[\s#:]+", " ", match[0]), advice))
    return sorted(found)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_reader_need_not_decode(path):
    name = path.relative_to(ROOT).as_posix()
    found = violations(path.read_text(encoding="utf-8"))
    kept = ALLOWED.get(name, set())
    assert [line for line in found if line[1] not in kept] == []


def test_phrases_are_found_across_lines_and_comments():
    text = (
        "It is\n    # no list.\nThere is no list, it is no longer one.\nNumbers\nalone, one a row."
    )
    assert [(line, words) for line, words, _ in violations(text)] == [
        (1, "is no"),
        (5, "alone"),
        (5, "one a row"),
    ]


def test_every_kind_of_text_is_read():
    names = {path.relative_to(ROOT).as_posix() for path in files()}
    assert names >= {
        "README.md",
        "docs/eac.md",
        "docs/api/losses.md",
        "plugins/robustfer-gce/README.md",
        "plugins/robustfer-gce/src/robustfer_gce/losses.py",
        "examples/eac.py",
        "src/robustfer/checkpoint.py",
        "src/robustfer/templates/new_plugin/README.md.txt",
        "src/robustfer/audit/review.html",
    }


if __name__ == "__main__":
    for path in files():
        for line, words, advice in violations(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(ROOT)}:{line}: {words!r}; write: {advice}")
