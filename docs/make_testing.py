"""Write the tables of docs/testing.md from the docstrings of the conformance kits.

    python docs/make_testing.py

Run it after a change of a kit; a test fails while the page is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from robustfer import _docstrings, testing

PAGE = Path(__file__).with_name("testing.md")


def page(text: str) -> str:
    """Return the page with every table written anew."""
    tables = {"checks": checks, "attributes": attributes}
    return re.sub(
        r"(<!-- (\w+) of (\w+), written by docs/make_testing\.py -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}{tables[found[2]](getattr(testing, found[3]))}{found[4]}",
        text,
        flags=re.DOTALL,
    )


def checks(kit: type) -> str:
    """Return a Markdown table of the checks that a kit adds to those it inherits."""
    rows = (
        (f"`{name}`", (check.__doc__ or "").strip().removesuffix(".").replace("``", "`"))
        for name, check in vars(kit).items()
        if name.startswith("test_")
    )
    return table(("check", "what must hold"), rows)


def attributes(kit: type) -> str:
    """Return a Markdown table of what a test class may set, with the defaults."""
    meanings = _docstrings.arguments(kit.__doc__ or "", "Attributes")
    rows = (
        (f"`{name}`", f"`{getattr(kit, name)!r}`", meaning.removesuffix("."))
        for name, meaning in meanings.items()
    )
    return table(("attribute", "default", "meaning"), rows)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table, one line per row."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
