"""The pages on plugins say what the code does."""

from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from robustfer import Component, hookspecs

DOCS = Path(__file__).parents[1] / "docs"
HOOKS = [value for name, value in vars(hookspecs).items() if name.startswith("robustfer_")]


@pytest.fixture(scope="module")
def page():
    return (DOCS / "hooks.md").read_text(encoding="utf-8")


def test_every_hook_is_documented_with_its_arguments_and_no_other(page):
    documented = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert documented == [
        f"{hook.__name__}({', '.join(inspect.signature(hook).parameters)})" for hook in HOOKS
    ]


def test_every_field_of_a_component_is_documented(page):
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert rows == [field.name for field in fields(Component)]


def test_the_page_of_all_components_is_up_to_date(monkeypatch):
    make = runpy.run_path(str(DOCS / "make_components.py"))
    monkeypatch.setenv("ROBUSTFER_PLUGINS", make["PLUGINS"])
    expected = make["page"]()
    assert "### eac" in expected
    actual = make["PAGE"].read_text(encoding="utf-8")
    assert actual == expected, "run `python docs/make_components.py`"
