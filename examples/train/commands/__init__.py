"""The commands for what is trained already, by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Entry(NamedTuple):
    """Where a command stands and what it does, without importing it."""

    module: str
    summary: str

    def load(self) -> ModuleType:
        """Import the module: its ``Options``, and ``run``, which does it."""
        return import_module(f"{__name__}.{self.module}")


#: Name -> the command.
COMMANDS: dict[str, Entry] = {
    "evaluate": Entry("evaluate", "how good a trained run is: overall, per class, how sure"),
    "compare": Entry("compare", "one card of several runs: means over seeds, differences, curves"),
    "predict": Entry("predict", "the class of each image in a folder, as a csv file"),
    "export": Entry("export", "a trained network as ONNX, checked against onnxruntime"),
    "strip": Entry("strip", "a trained network's weights for plain timm"),
}
