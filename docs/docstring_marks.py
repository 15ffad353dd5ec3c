r"""Docstrings on the pages: marks of reStructuredText as Markdown has them, for mkdocstrings.

``:math:`x``` becomes ``\(x\)``, ``.. math::`` becomes ``\[ ... \]``, and ``:func:`~a.b``` a link if
the site has its place. Examples become code, ``Shape:`` and ``Reference:`` paragraphs.
"""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import griffe


class DocstringMarks(griffe.Extension):
    """Rewrites every docstring before it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Return a docstring with maths, roles, sections and examples as Markdown."""
    text = re.sub(r"^\.\. math::(.*(?:\n+[ \t]+.*)*)", _block, text, flags=re.MULTILINE)
    text = re.sub(r"^>>> .*(?:\n.*\S.*)*", r"```pycon\n\g<0>\n```", text, flags=re.MULTILINE)
    text = re.sub(
        r"^(Shape|Reference):\n((?:    .*(?:\n|\Z)|\n)*)", _paragraph, text, flags=re.MULTILINE
    )
    text = re.sub(r"(?<=\w)::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", r"\\(\1\\)", text)
    return re.sub(r":\w+:`(~?)([^`]*)`", _link, text)


def _block(found: re.Match[str]) -> str:
    return "\\[\n" + " ".join(found[1].split()) + "\n\\]"


def _paragraph(found: re.Match[str]) -> str:
    return f"**{found[1]}:** {dedent(found[2]).strip()}\n\n"


def _link(found: re.Match[str]) -> str:
    short, name = found[1], found[2]
    code = f"`{name.rpartition('.')[2] if short else name}`"
    if not name.startswith("robustfer."):
        return code
    code = f"<code>{name.rpartition('.')[2]}</code>"
    return f'<autoref identifier="{name}" optional>{code}</autoref>'
