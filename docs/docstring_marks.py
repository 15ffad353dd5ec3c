r"""Docstrings on the pages: marks of reStructuredText as Markdown has them, for mkdocstrings.

``:math:`x``` becomes ``\(x\)``, ``.. math::`` becomes ``\[ ... \]``, and ``:func:`~a.b``` code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class DocstringMarks(griffe.Extension):
    """Rewrites every docstring before it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Return a docstring with maths and roles as Markdown."""
    text = re.sub(r"^\.\. math::(.*(?:\n+[ \t]+.*)*)", _block, text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", r"\\(\1\\)", text)
    text = re.sub(r":\w+:`~[\w.]*?(\w+)`", r"`\1`", text)
    return re.sub(r":\w+:`([^`]*)`", r"`\1`", text)


def _block(found: re.Match[str]) -> str:
    return "\\[\n" + " ".join(found[1].split()) + "\n\\]"
