"""A loop that changes labels begins its step with those of the store: no target is out of date."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for path in (*ROOT.glob("examples/**/*.py"), *ROOT.glob("docs/*.md"))
    if re.search(r"\b(relabeler|labels)\.update\(", path.read_text(encoding="utf-8"))
]
# The labels now, put where the loss finds them, before the first forward.
CURRENT = re.compile(
    r"""(target"\]|\.target|\btarget)\ =\ (labels\(|self\.labels\(|self\.relabeler\.labels\(
    |targets_now\(self\.labels)""",
    re.VERBOSE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_target_is_the_label_as_it_is_now(path):
    assert CURRENT.search(path.read_text(encoding="utf-8"))


def test_the_loops_are_found():
    assert {path.name for path in FILES} >= {"scn.py", "compose.py", "scn.md", "label_store.md"}
