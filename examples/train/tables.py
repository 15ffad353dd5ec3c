"""Write Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def markdown_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a Markdown table with the columns of the first row.

    >>> print(markdown_table([{"method": "ce", "last": "71.1 %"}, {"method": "eac", "last": "-"}]))
    | method | last   |
    |--------|--------|
    | ce     | 71.1 % |
    | eac    | -      |
    """
    if not rows:
        raise ValueError("rows is empty, expected at least one row")
    names = list(rows[0])
    lines = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = [
        "| "
        + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    made.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(made)
