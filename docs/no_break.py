"""A figure and its spread stay on one line of the page, also in a narrow column."""

from __future__ import annotations

from typing import Any


def on_page_content(content: str, **kwargs: Any) -> str:
    """mkdocs calls this with the HTML of each page."""
    return content.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
