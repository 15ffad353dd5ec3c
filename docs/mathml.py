"""Formulas of the pages as MathML, which browsers show by themselves: no script, no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', flags=re.DOTALL
)


def on_page_content(content: str, **kwargs: Any) -> str:
    """mkdocs calls this with the HTML of each page."""
    content = _FORMULA.sub(_mathml, content)
    if 'class="arithmatex"' in content:
        raise PluginError("a formula was not found on its page: look for arithmatex")
    return content


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    formula = html.unescape(found[2])
    mathml = convert(formula, display=display)
    # A macro that latex2mathml does not know comes back as it is, or as an empty operator.
    if "\\" in mathml or "<mo />" in mathml:
        raise PluginError(f"latex2mathml has no sign for a macro of {formula}; write another")
    return mathml
