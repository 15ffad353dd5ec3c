"""The pages on plugins say what the code does."""

from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from robustfer import Component, hookspecs
from robustfer.new_plugin import new_plugin

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIAL = ROOT / "plugins" / "robustfer-gce"
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


@pytest.fixture(scope="module")
def tutorial():
    return (DOCS / "write_a_plugin.md").read_text(encoding="utf-8")


def test_the_tutorial_shows_every_file_of_its_plugin_as_it_is(tutorial):
    shown = {ROOT / path for path in re.findall(r'^--8<-- "(.*)"$', tutorial, re.MULTILINE)}
    code = {path for path in TUTORIAL.rglob("*.py") if path.stat().st_size}
    assert shown == code | {TUTORIAL / "pyproject.toml"}


def test_the_tutorial_lists_what_new_plugin_writes(tutorial, tmp_path):
    [listed] = re.findall(r'^```text title="robustfer-acme/"\n(.*?)^```', tutorial, re.M | re.S)
    written = new_plugin("acme", tmp_path)
    folder = tmp_path / "robustfer-acme"
    assert listed.splitlines() == [path.relative_to(folder).as_posix() for path in written]


READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("plugins/README.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.parent.name)
def test_links_of_the_readmes_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_of_the_folder_lists_plugins_and_companion_tools():
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    listed = [
        re.findall(r"^\| \[`([\w-]+)`\]", part, re.MULTILINE)
        for part in text.split("## Companion tool")
    ]
    packages = {True: [], False: []}
    for path in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        is_plugin = "[project.entry-points.robustfer]" in path.read_text(encoding="utf-8")
        packages[is_plugin].append(path.parent.name)
    assert listed == [packages[True], packages[False]]
    for name in packages[False]:
        readme = (ROOT / "plugins" / name / "README.md").read_text(encoding="utf-8")
        assert "A companion tool of [robustfer]" in readme
