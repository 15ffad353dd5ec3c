"""The public surface: what ``__all__`` names, each with its place in the API reference."""

import importlib
import inspect
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest

import robustfer

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ["robustfer"] + [
    f"robustfer.{found.name}"
    for found in pkgutil.iter_modules(robustfer.__path__)
    if not found.name.startswith("_")
]


def public() -> list[str]:
    packages = {name: importlib.import_module(name) for name in PACKAGES}
    return [
        f"{name}.{part}"
        for name, package in packages.items()
        for part in getattr(package, "__all__", ())
        if part != "__version__"
    ]


def documented() -> Counter[str]:
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")]
    return Counter(name for page in pages for name in re.findall(r"^::: (\S+)", page, re.MULTILINE))


def test_every_public_name_is_on_exactly_one_page_of_the_reference():
    places = documented()
    assert {name: places[name] for name in public() if places[name] != 1} == {}


def test_every_page_of_the_reference_is_in_the_navigation():
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("api/*.md")]
    assert pages
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_what_the_reference_shows_can_be_imported():
    for name in documented():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_a_package_hands_out_nothing_that_the_reference_lacks():
    shown, lacking = documented(), []
    for name in PACKAGES:
        package = importlib.import_module(name)
        if hasattr(package, "__path__"):
            handed = [part for part, value in vars(package).items() if not inspect.ismodule(value)]
            lacking += [f"{name}.{part}" for part in handed if not part.startswith("_")]
    assert [name for name in lacking if name not in shown] == []


def test_options_that_must_be_bools_are_documented_to_raise():
    silent = []
    for name in public():
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
        if not (inspect.isclass(found) or inspect.isfunction(found)):
            continue
        options = inspect.signature(found).parameters.values()
        if any(option.annotation == "bool" for option in options):
            raises = (inspect.getdoc(found) or "").partition("Raises:")[2]
            silent += [name] if "TypeError" not in raises else []
    # Tools for such checks.
    assert silent == ["robustfer.authoring.check_bool", "robustfer.authoring.check_range"]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_sorted_and_there(name):
    package = importlib.import_module(name)
    names = getattr(package, "__all__", [])
    assert len(set(names)) == len(names)
    assert [part for part in names if not hasattr(package, part)] == []
    # The reference would show the file in the place of what is in it.
    files = [found.name for found in pkgutil.iter_modules(getattr(package, "__path__", []))]
    assert set(files) & set(names) == set()
