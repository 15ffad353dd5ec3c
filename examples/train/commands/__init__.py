"""List the commands for finished runs by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import NamedTuple


class Entry(NamedTuple):
    """A command's place and summary, without importing it."""

    module: str
    summary: str

    def load(self) -> ModuleType:
        """Import the module. Its ``run`` takes its ``Options``."""
        return import_module(f"{__name__}.{self.module}")


#: Name -> the command.
COMMANDS: dict[str, Entry] = {
    "evaluate": Entry("evaluate", "report accuracy, accuracy per class and calibration"),
    "compare": Entry("compare", "compare runs on one card: means over seeds, differences, curves"),
    "predict": Entry("predict", "predict the class of each image in a folder, as a csv file"),
    "export": Entry("export", "write a trained network as ONNX, checked with onnxruntime"),
    "strip": Entry("strip", "write a trained network's weights for plain timm"),
}
