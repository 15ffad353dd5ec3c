"""An error that advises an option names one that the caller has."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import robustfer

SOURCE = Path(robustfer.__file__).parent
HINT = re.compile(r"(?<![\w.{<-])([a-z_][a-z0-9_]*)=")

# Function, hint -> whose option it is, where it is not one of the function that the caller called.
OF_OTHERS = {
    ("check_first", "create_graph"): "torch's backward",
    ("check_followable", "resample"): "kornia's operations",
    ("_warn_of_few_places", "model_options"): "CAMClassifier, which makes timm's networks",
    ("_token_grid", "patch_drop_rate"): "timm.create_model",
    ("examine_training", "patch_drop_rate"): "timm.create_model",
    ("_measured", "features_only"): "timm.create_model",
    ("FileFaces.load_image", "size"): "the readers of files, one of which has made the data set",
    ("LandmarkClassifier.__init__", "features_only"): "timm.create_model",
    ("_check_alike", "size"): "the readers, which the text names",
    ("RAFDB.__init__", "numbers"): "the reader of folders, which the text names",
    ("_faces", "labels"): "the reader, which --reader passes it to",
    # Said where the reader has given it; tests/data/test_noise_lists.py has the other case.
    ("NamedOnce.is_new", "duplicates"): "the readers that give NamedOnce theirs",
}


class Function(NamedTuple):
    module: str
    name: str  # with the class before it

    @property
    def owner(self) -> str:
        return self.name.rpartition(".")[0]


@cache
def sources() -> dict[str, ast.Module]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(("robustfer", *parts)).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def functions() -> dict[Function, ast.FunctionDef]:
    found: dict[Function, ast.FunctionDef] = {}
    for module, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found[Function(module, node.name)] = node
            elif isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, ast.FunctionDef):
                        found[Function(module, f"{node.name}.{part.name}")] = part
    return found


@cache
def imported(module: str) -> dict[str, tuple[str, str]]:
    """Name in a module -> the module of robustfer that it is from, and its name there."""
    found = {}
    for node in ast.walk(sources()[module]) if module in sources() else ():
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("robustfer"):
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module or "", alias.name)
    return found


@cache
def defined(module: str, name: str) -> Function | None:
    """The function, or the constructor of the class, that a name of a module stands for."""
    for called in (name, f"{name}.__init__"):
        if Function(module, called) in functions():
            return Function(module, called)
    return defined(*imported(module)[name]) if name in imported(module) else None


@cache
def callers() -> dict[Function, set[Function]]:
    """Function -> those whose text has its name; methods are known by their name only."""
    methods = defaultdict(list)
    for function in functions():
        if function.owner and not function.name.endswith("__"):
            methods[function.name.rpartition(".")[2]].append(function)
    found: dict[Function, set[Function]] = defaultdict(set)
    for function, node in functions().items():
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and (used := defined(function.module, part.id)):
                found[used].add(function)
            elif isinstance(part, ast.Attribute):
                for method in methods[part.attr]:
                    found[method].add(function)
    return found


@cache
def public() -> set[Function]:
    """Functions and classes that a module hands out, by where they are defined."""
    found = set()
    for module in sources():
        if not module.rpartition(".")[2].startswith("_"):
            loaded = importlib.import_module(module)
            handed = vars(loaded) if hasattr(loaded, "__path__") else getattr(loaded, "__all__", ())
            for name in handed:
                value = getattr(loaded, name)
                if inspect.isclass(value) or inspect.isfunction(value):
                    found.add(Function(value.__module__, value.__qualname__))
    return found


def entries(function: Function) -> set[Function]:
    """The public functions and methods by which a caller first comes to a function."""
    found, seen, left = set(), {function}, [function]
    while left:
        one = left.pop()
        private = one.name.rpartition(".")[2].startswith("_") and not one.name.endswith("__")
        if not private and (one in public() or Function(one.module, one.owner) in public()):
            found.add(one)
            continue
        left += callers()[one] - seen
        seen |= callers()[one]
    return found or {function}


def options(function: Function) -> set[str]:
    """What a function takes, or the constructor of its class."""
    taken: set[str] = set()
    for name in filter(None, (function.name, function.owner)):
        value = importlib.import_module(function.module)
        for part in name.split("."):
            value = getattr(value, part)
        taken |= set(inspect.signature(value).parameters)
    return taken


def hints() -> list[tuple[Function, str]]:
    """Every ``option=`` in a text of a function that raises or warns, its docstring apart."""
    found = set()
    for function, node in functions().items():
        parts = [part for statement in node.body for part in ast.walk(statement)]
        raises = any(isinstance(part, ast.Raise) for part in parts)
        warns = any(
            isinstance(part, ast.Call) and "warn" in ast.unparse(part.func) for part in parts
        )
        docstring = ast.get_docstring(node, clean=False)
        for part in parts if raises or warns else []:
            text = part.value if isinstance(part, ast.Constant) else None
            if isinstance(text, str) and text != docstring:
                found |= {(function, hint) for hint in HINT.findall(text)}
    return sorted(found)


@pytest.mark.parametrize(
    ("function", "hint"), hints(), ids=lambda value: getattr(value, "name", value)
)
def test_an_advised_option_is_one_of_the_caller(function: Function, hint: str) -> None:
    if (function.name, hint) in OF_OTHERS:
        return
    lacking = sorted(entry for entry in entries(function) if hint not in options(entry))
    assert not lacking, (
        f"an error of {function.module}.{function.name} advises {hint}=, which these do not take: "
        f"{', '.join(entry.name for entry in lacking)}"
    )


def test_the_exceptions_are_needed() -> None:
    found = {(function.name, hint) for function, hint in hints()}
    assert set(OF_OTHERS) <= found
