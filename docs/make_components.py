"""Write docs/components.md, which shows every component as the registry describes it.

    python docs/make_components.py

Run it after a change of a component; a test fails while the page is out of date.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from robustfer import registry
from robustfer.hookspecs import KINDS
from robustfer.registry import Description

PAGE = Path(__file__).with_name("components.md")

#: Plugins on the page beside the core, as ``ROBUSTFER_PLUGINS`` names them.
PLUGINS = "gce,robust_losses,elr,mek,nla,rul,sop,votes"


def page() -> str:
    """Return the page, of the plugins that ``ROBUSTFER_PLUGINS`` now allows."""
    parts = [
        "<!-- Written by docs/make_components.py: change the docstrings, then run it. -->",
        "# All components",
        "Every component here is created by its name. It comes from the core, or from the packages "
        "in robustfer's `plugins/` if you install them. `robustfer list` lists all that is "
        "installed, and `robustfer show NAME` shows one of them as on this page.",
        "```python\nfrom robustfer.registry import create\n\n"
        'criterion = create("eac", consistency_weight=5.0)\n```',
    ]
    for kind in KINDS:
        parts.append(f"## {kind.replace('_', ' ').capitalize()}")
        parts += [section(name, registry.describe(name)) for name in registry.available(kind)]
    return "\n\n".join(parts) + "\n"


def section(name: str, described: Description) -> str:
    """Return what the page says of one component."""
    options = (
        (
            option.name,
            "must be given" if option.required else f"`{option.default!r}`",
            option.meaning,
        )
        for option in described.options
    )
    tensors = (
        (tensor.name + ("" if tensor.required else " (optional)"), tensor.shape)
        for tensor in described.tensors
    )
    parts = [
        f"### {name}",
        f"{described.summary}.",
        table(("option", "default", ""), options) if described.options else "No options.",
        table(("tensor", "shape"), tensors),
        f"Gives: {described.result}.",
        *(f"`{one.signature}`: {one.when}. {one.meaning}." for one in described.state),
        f"Reference: {described.reference}.",
        f"From: `{described.source}`, in the package `{described.distribution}`.",
    ]
    return "\n\n".join(parts)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


if __name__ == "__main__":
    os.environ["ROBUSTFER_PLUGINS"] = PLUGINS
    PAGE.write_text(page(), encoding="utf-8")
