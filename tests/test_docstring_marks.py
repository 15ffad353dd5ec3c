"""Docstrings as the pages show them."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def markdown():
    return runpy.run_path(str(DOCS / "docstring_marks.py"))["markdown"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"with :math:`\lambda_n` as it is", r"with \(\lambda_n\) as it is"),
        (
            ":func:`check_values` and :class:`~robustfer.state.ModelEMA`.",
            "`check_values` and `ModelEMA`.",
        ),
        ("``(B, C)`` stays, as {'a': 1} does", "``(B, C)`` stays, as {'a': 1} does"),
        (".. math:: a + b\n\nText.", "\\[\na + b\n\\]\n\nText."),
        (
            "It is\n\n.. math::\n    a\n    + b\n\n    + c\n\nText.",
            "It is\n\n\\[\na + b + c\n\\]\n\nText.",
        ),
        (".. math:: a", "\\[\na\n\\]"),
    ],
)
def test_marks(markdown, text, expected):
    assert markdown(text) == expected
