"""Read Google docstrings: meanings of options, shapes of tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape
from inspect import cleandoc

_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma"
    "|tau|upsilon|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)


def section(docstring: str, title: str) -> str:
    r"""Return the text under a heading such as ``Shape:``, unindented, or "" without one.

    >>> section("Sum.\n\nShape:\n    x ``(B)`` -> scalar\n\nRaises:\n    E: no\n", "Shape")
    'x ``(B)`` -> scalar'
    """
    pattern = rf"^{title}:[ ]*\n((?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)*)"
    found = re.search(pattern, cleandoc(docstring) + "\n", re.MULTILINE)
    return cleandoc(found[1]).strip() if found else ""


def first_paragraph(docstring: str) -> str:
    r"""Return the first paragraph, on one line and without the full stop at its end.

    >>> first_paragraph("Keep what\n``propose`` returned.\n\nArgs:\n    x: it.")
    'Keep what propose returned'
    """
    return plain(" ".join(docstring.partition("\n\n")[0].split())).removesuffix(".")


def arguments(docstring: str, title: str = "Args") -> dict[str, str]:
    r"""Return the meaning of each argument under ``Args:`` or another title, each on one line.

    >>> arguments("Scale.\n\nArgs:\n    weight: factor of\n        the term.\n    x: it.\n")
    {'weight': 'factor of the term.', 'x': 'it.'}
    """
    meanings = re.findall(
        r"^\*{0,2}(\w+)(?: \([^)]*\))?:[ ]*(.*(?:\n[ \t]+.*)*)",
        section(docstring, title),
        re.MULTILINE,
    )
    return {name: plain(" ".join(meaning.split())) for name, meaning in meanings}


def shapes(docstring: str, names: Sequence[str]) -> tuple[dict[str, str], str]:
    r"""Return the shape of each named tensor and of the result, as far as ``Shape:`` has them.

    Names that stand together share the shape that follows.

    >>> shapes("S.\n\nShape:\n    a, b ``(B, C)`` and c ``(B)`` -> scalar\n", ["a", "b", "c"])
    ({'a': '(B, C)', 'b': '(B, C)', 'c': '(B)'}, 'scalar')
    """
    said, _, result = plain(" ".join(section(docstring, "Shape").split())).partition(" -> ")
    parts = re.split(rf"\b({'|'.join(names)})\b", said) if names else [said]
    # Such as "both (B, C) -> scalar".
    if len(parts) == 1:
        return dict.fromkeys(names, said), result
    shape, found = "", {}
    for name, text in reversed(list(zip(parts[1::2], parts[2::2], strict=True))):
        own = re.sub(r"^[,:\s]+|(?:[,;\s]|\band\b)+$", "", text)
        shape = own or shape
        found[name] = shape
    return {name: found.get(name, "") for name in names}, result


def names_with_shape(docstring: str) -> list[str]:
    r"""Return the names that ``Shape:`` gives a shape, in its order.

    >>> names_with_shape("S.\n\nShape:\n    a, b ``(B)``, c ``(B)`` or ``(B, C)`` -> scalar\n")
    ['a', 'b', 'c']
    """
    said, _, _ = section(docstring, "Shape").partition("->")
    before, *others = re.split(r"``\([^`]*\)``", said)[:-1] or [""]
    # What follows a shape up to a comma belongs to it, such as "int64".
    lists = [
        before,
        *(re.split(r",\s*and\b|[,;]|\band\b", text, maxsplit=1)[-1] for text in others),
    ]
    names = [
        name
        for text in lists
        if re.fullmatch(r"\w+(?:(?:,| and)\s+\w+)*", text.strip())
        for name in re.findall(r"\w+", text)
    ]
    return [name for name in dict.fromkeys(names) if name not in ("all", "and", "both", "or")]


def plain(text: str) -> str:
    r"""Return text without reStructuredText marks, and with Greek letters instead of TeX names.

    >>> plain(r"``decay`` of :class:`~robustfer.state.ModelEMA`, :math:`\lambda_t`")
    'decay of ModelEMA, λ_t'
    """
    text = re.sub(rf"\\({_GREEK})(?![A-Za-z])", lambda found: unescape(f"&{found[1]};"), text)
    text = re.sub(r":\w+:`~[\w.]*?(\w+)`", r"\1", text)
    return re.sub(r":\w+:`([^`]*)`", r"\1", text).replace("``", "")
