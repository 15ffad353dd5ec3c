"""Which way the package leans, and what importing its parts loads."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import robustfer
from tests.plugins_support import run_python

SOURCE = Path(robustfer.__file__).parent

# Part of the package -> what it may import beside the standard library, itself and `robustfer`,
# whose __init__ is run by every import. A part is a module or a folder directly under robustfer/.
MAY_IMPORT = {
    "robustfer": {"robustfer.hookspecs"},
    # The mathematics, and the losses over it: torch alone.
    "robustfer._checks": {"torch", "robustfer._shown"},
    "robustfer._copying": {"torch"},
    "robustfer._dtypes": {"torch"},
    "robustfer._files": set(),
    "robustfer._hashes": {"numpy", "robustfer._inputs"},
    "robustfer._inputs": {"torch", "numpy", "robustfer._checks"},
    "robustfer._names": set(),
    "robustfer._npz": {"numpy"},
    "robustfer._saved_state": {"torch"},
    "robustfer._tables": {"torch", "robustfer._shown"},
    "robustfer._wrappers": {"torch"},
    "robustfer.landmarks": {
        *("torch", "numpy", "robustfer._checks", "robustfer._inputs", "robustfer._npz"),
        *("robustfer._shown", "robustfer._tables"),
    },
    "robustfer.functional": {"torch", "robustfer._checks", "robustfer.landmarks"},
    "robustfer.losses": {
        *("torch", "robustfer._checks", "robustfer._saved_state", "robustfer._shown"),
        "robustfer.functional",
    },
    "robustfer.authoring": {
        *("robustfer._checks", "robustfer._dtypes", "robustfer._saved_state"),
        *("robustfer.functional", "robustfer.losses", "robustfer.state"),
    },
    "robustfer.state": {
        *("torch", "robustfer._checks", "robustfer._copying", "robustfer._dtypes"),
        *(
            "robustfer._files",
            "robustfer._saved_state",
            "robustfer._wrappers",
            "robustfer.functional",
        ),
    },
    # What surrounds a loss; losses know none of it.
    "robustfer.metrics": {"torch", "robustfer._checks"},
    "robustfer.checkpoint": {
        *("torch", "safetensors", "robustfer._files", "robustfer._inputs", "robustfer._wrappers"),
        "robustfer.models",  # to rebuild a classifier
    },
    "robustfer.models": {
        *("torch", "timm", "robustfer._checks", "robustfer._copying", "robustfer._dtypes"),
        *("robustfer._wrappers", "robustfer.functional", "robustfer.landmarks"),
    },
    "robustfer.augmentations": {
        *("torch", "kornia", "robustfer._checks", "robustfer.functional", "robustfer.landmarks"),
    },
    "robustfer.data": {
        *("torch", "numpy", "PIL", "tqdm", "typing_extensions"),
        *("robustfer._checks", "robustfer._files", "robustfer._hashes", "robustfer._inputs"),
        *("robustfer._shown", "robustfer._tables", "robustfer.functional", "robustfer.landmarks"),
    },
    "robustfer._predictions": {
        *("torch", "numpy", "safetensors", "robustfer._files", "robustfer._inputs"),
        *("robustfer._npz", "robustfer._shown", "robustfer._tables", "robustfer.data"),
    },
    "robustfer.noise": {
        *("torch", "numpy", "matplotlib"),
        *("robustfer._checks", "robustfer._files", "robustfer._hashes", "robustfer._inputs"),
        *("robustfer._names", "robustfer._predictions", "robustfer._shown", "robustfer._tables"),
        *("robustfer.data", "robustfer.metrics"),
    },
    "robustfer.audit": {
        *("torch", "numpy", "safetensors", "jinja2", "PIL"),
        *("robustfer._checks", "robustfer._files", "robustfer._inputs", "robustfer._predictions"),
        *("robustfer._shown", "robustfer._tables"),
        *("robustfer.data", "robustfer.noise", "robustfer.state"),
    },
    # Components by name: none of these may load one.
    "robustfer._shown": set(),
    "robustfer.hookspecs": {"pluggy", "robustfer._shown"},
    "robustfer._builtin": {"robustfer.hookspecs"},
    "robustfer._entry_points": {"robustfer._shown"},
    "robustfer.plugins": {
        *("pluggy", "packaging", "robustfer._entry_points", "robustfer._shown"),
        "robustfer.hookspecs",
    },
    "robustfer._docstrings": set(),
    "robustfer._description": {
        *("robustfer._docstrings", "robustfer._shown"),
        *("robustfer.hookspecs", "robustfer.plugins"),
    },
    "robustfer.registry": {
        *("robustfer._description", "robustfer._shown", "robustfer.hookspecs", "robustfer.plugins"),
        "robustfer.losses",  # once a loss has been made, to watch over its parameters
    },
    "robustfer._plugin_check": {
        *("torch", "numpy", "robustfer.plugins", "robustfer.registry"),
        "robustfer.authoring",
    },
    "robustfer.new_plugin": {"robustfer.hookspecs", "robustfer.plugins"},
    "robustfer.__main__": {"robustfer.cli"},
    "robustfer._data_arguments": {"robustfer._names"},
    "robustfer.cli": {
        *("robustfer._data_arguments", "robustfer._shown"),
        *("robustfer._plugin_check", "robustfer.audit"),
        *("robustfer.hookspecs", "robustfer.new_plugin"),
        *("robustfer.plugins", "robustfer.registry", "robustfer.noise"),
    },
    # For authors of losses, in their tests.
    "robustfer.testing": {
        *("torch", "numpy", "pytest", "hypothesis", "robustfer._checks"),
        *("robustfer._docstrings", "robustfer.hookspecs", "robustfer.plugins"),
        *("robustfer.registry", "robustfer.losses"),
    },
}

MODULES = {
    ".".join(("robustfer", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in SOURCE.rglob("*.py")
}


def part_of(module: str) -> str:
    """The part of robustfer that a module belongs to, or the package of anything else."""
    names = module.split(".")
    return ".".join(names[:2] if names[0] == "robustfer" else names[:1])


def imported(module: str) -> set[str]:
    """All modules that a module imports anywhere: in functions and for type checkers as well."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            # What follows `from robustfer import` may be a module, or something in __init__.
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {start}
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_arrow_points_the_other_way(module):
    part = part_of(module)
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what the new part {part} may import"
    parts = {part_of(name) for name in imported(module)} - sys.stdlib_module_names
    wrong = parts - MAY_IMPORT[part] - {part, "robustfer"}
    assert not wrong, f"{module} must not import {sorted(wrong)}"


def test_the_walk_sees_every_way_to_import(tmp_path, monkeypatch):
    path = tmp_path / "odd.py"
    path.write_text(
        "import torch.nn as nn, json\n"
        "from . import _checks\n"
        "from .losses.eac import EACLoss\n"
        "from robustfer import hookimpl, registry\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from kornia.augmentation import Thing\n"
        "def late():\n    import timm\n"
    )
    monkeypatch.setitem(MODULES, "robustfer.odd", path)
    assert imported("robustfer.odd") >= {
        *("torch.nn", "json", "robustfer._checks", "robustfer.losses.eac"),
        *("robustfer.registry", "kornia.augmentation", "timm"),
    }


def circle(needs: dict[str, set[str]]) -> list[str]:
    """Names that need each other in a circle, or need one that does; empty if there is none."""
    rest = {name: needed & needs.keys() - {name} for name, needed in needs.items()}
    while free := {name for name, needed in rest.items() if not needed & rest.keys()}:
        rest = {name: needed for name, needed in rest.items() if name not in free}
    return sorted(rest)


def test_the_parts_lean_one_way():
    """No circle among the parts, as the table has it."""
    assert circle(MAY_IMPORT) == []


def test_no_circle_among_files():
    """Inside a folder either, not even with an import in a function."""
    assert circle({module: imported(module) for module in MODULES}) == []


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c", "torch"}, "c": {"a"}, "d": {"b"}, "e": set()}) == [
        *"abcd"
    ]


FOR_USERS = [
    path
    for folder in ("examples", "benchmarks", "plugins")
    for path in (SOURCE.parents[1] / folder).rglob("*.py")
]


def test_what_users_copy_needs_no_private_module(monkeypatch):
    used = {}
    for path in FOR_USERS:
        monkeypatch.setitem(MODULES, "of.users", path)
        private = {name for name in imported("of.users") if name.startswith("robustfer._")}
        if private:
            used[path.name] = sorted(private)
    assert FOR_USERS
    assert used == {}


SLOW = ("torch", "torchvision", "timm", "kornia", "numpy", "PIL", "tqdm", "packaging", "pytest")


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import robustfer", SLOW),
        ("import robustfer.cli, robustfer.registry", SLOW),
        # torch's compiler takes seconds to import.
        ("import robustfer.losses", ("kornia", "timm", "torchvision", "pytest", "torch._dynamo")),
        ("import robustfer.checkpoint", ("timm", "torchvision", "pytest")),
    ],
)
def test_what_an_import_does_not_load(statement, never):
    code = f"import sys; {statement}; print(sorted(set({never}) & set(sys.modules)))"
    finished = run_python("-c", code)
    assert (finished.stdout, finished.stderr) == ("[]\n", "")
