r"""Docstrings on the pages: marks of reStructuredText as Markdown has them, for mkdocstrings.

``:math:`x``` becomes ``\(x\)``, ``.. math::`` becomes ``\[ ... \]``, and ``:func:`~a.b``` a link if
the site has its place. A short name, ``:meth:`update```, means what it means in the code beside it.
Examples become code, ``Shape:`` and ``Reference:`` paragraphs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from textwrap import dedent
from typing import Any

import griffe


class DocstringMarks(griffe.Extension):
    """Rewrites every docstring before it is read."""

    # Not on_object: a short name may mean something that is read later.
    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        _rewrite(pkg)


def _rewrite(obj: griffe.Object) -> None:
    if obj.docstring is not None:
        obj.docstring.value = markdown(obj.docstring.value, partial(_full_name, obj))
    for member in obj.members.values():
        if isinstance(member, griffe.Object):
            _rewrite(member)


def _full_name(obj: griffe.Object, name: str) -> str:
    scope: griffe.Object | None = obj
    while scope is not None:
        first, _, rest = name.partition(".")
        if first in scope.members:
            found = scope.members[first]
            path = found.target_path if isinstance(found, griffe.Alias) else found.path
            return f"{path}.{rest}" if rest else path
        scope = None if scope.is_module else scope.parent
    return name


def markdown(text: str, full_name: Callable[[str], str] = str) -> str:
    """Return a docstring with maths, roles, sections and examples as Markdown.

    ``full_name`` returns the full name of a name in the docstring, or the name itself.
    """
    text = re.sub(r"^\.\. math::(.*(?:\n+[ \t]+.*)*)", _block, text, flags=re.MULTILINE)
    text = re.sub(r"^>>> .*(?:\n.*\S.*)*", r"```pycon\n\g<0>\n```", text, flags=re.MULTILINE)
    text = re.sub(
        r"^(Shape|Reference):\n((?:    .*(?:\n|\Z)|\n)*)", _paragraph, text, flags=re.MULTILINE
    )
    text = re.sub(r"(?<=\w)::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", r"\\(\1\\)", text)
    return re.sub(r":\w+:`(~?)([^`]*)`", partial(_link, full_name), text)


def _block(found: re.Match[str]) -> str:
    return "\\[\n" + " ".join(found[1].split()) + "\n\\]"


def _paragraph(found: re.Match[str]) -> str:
    return f"**{found[1]}:** {dedent(found[2]).strip()}\n\n"


def _link(full_name: Callable[[str], str], found: re.Match[str]) -> str:
    short, name = found[1], found[2]
    place = full_name(name)
    if place.startswith("robustfer."):
        shown = name.rpartition(".")[2] if place == name else name
        return f'<autoref identifier="{place}" optional><code>{shown}</code></autoref>'
    return f"`{name.rpartition('.')[2] if short else name}`"
