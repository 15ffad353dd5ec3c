"""Docstrings, formulas and figures as the pages show them."""

import re
import runpy
from pathlib import Path

import pytest
from mkdocs.exceptions import PluginError

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
            '`check_values` and <autoref identifier="robustfer.state.ModelEMA" optional>'
            "<code>ModelEMA</code></autoref>.",
        ),
        (":class:`~robustfer_elr.losses.EarlyLearningLoss`", "`EarlyLearningLoss`"),
        (
            "Sum.\n\nShape:\n    x ``(B)``\n    -> scalar\n\nRaises:\n    E: no\n",
            "Sum.\n\n**Shape:** x ``(B)``\n-> scalar\n\nRaises:\n    E: no\n",
        ),
        (
            "Sum.\n\n>>> f(\n...     1\n... )\n2\n\nText.",
            "Sum.\n\n```pycon\n>>> f(\n...     1\n... )\n2\n```\n\nText.",
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


def test_a_short_name_is_a_link(markdown):
    places = {"Bank.update": "robustfer.state.bank.Bank.update"}
    assert markdown(
        "Call :meth:`Bank.update` and :meth:`eval`.", lambda name: places.get(name, name)
    ) == (
        'Call <autoref identifier="robustfer.state.bank.Bank.update" optional>'
        "<code>Bank.update</code></autoref> and `eval`."
    )


@pytest.fixture(scope="module")
def on_page_content():
    return runpy.run_path(str(DOCS / "mathml.py"))["on_page_content"]


def inline(formula):
    return f'a <span class="arithmatex">\\({formula}\\)</span> b'


def test_formulas_become_mathml(on_page_content):
    content = on_page_content(inline(r"\hat y = \operatorname{argmax}_c q_c &lt; 1"))
    assert content.startswith("a <math ")
    assert content.endswith("</math> b")
    assert "<mo>argmax</mo>" in content
    assert "\\" not in content


@pytest.mark.parametrize("formula", [r"\arg\max_c q", r"x \nosuchmacro y", r"\operatorname{a\,b}"])
def test_a_macro_without_a_sign_ends_the_build(on_page_content, formula):
    with pytest.raises(PluginError, match="no sign for a macro of .*" + re.escape(formula[:4])):
        on_page_content(inline(formula))


def test_a_formula_that_is_not_found_ends_the_build(on_page_content):
    with pytest.raises(PluginError, match="was not found"):
        on_page_content('<p class="arithmatex">$x$</p>')


def test_a_figure_and_its_spread_are_not_broken():
    on_page_content = runpy.run_path(str(DOCS / "no_break.py"))["on_page_content"]
    content = on_page_content("<td>81.7 ± 1.0 (-1.1 ± 0.5)</td>")
    assert content == "<td>81.7\xa0±\xa01.0 (-1.1\xa0±\xa00.5)</td>"
