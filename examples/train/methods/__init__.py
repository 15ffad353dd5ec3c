"""The methods by the name of their command."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from examples.train.methods.base import Method


class Entry(NamedTuple):
    """Where a method stands and what it is, without importing it."""

    module: str
    name: str
    summary: str

    def load(self) -> type[Method]:
        """Import the class."""
        found: type[Method] = getattr(import_module(f"{__name__}.{self.module}"), self.name)
        return found


#: Command -> its method.
METHODS: dict[str, Entry] = {
    "ce": Entry("cross_entropy", "CrossEntropy", "cross entropy, the baseline"),
    "eac": Entry("eac", "EAC", "class maps that agree with the mirror image's"),
    "scn": Entry("scn", "SCN", "importance weights, their ranking, and relabelling"),
    "gsmc": Entry("gsmc", "GSMC", "the network's own average as a teacher, maps that agree"),
    "lanet": Entry("lanet", "LANet", "label distributions, and a contrast with landmarks"),
    "forward": Entry("forward", "Forward", "labels corrected by how often they are wrong"),
    "robust": Entry("robust", "Robust", "a teacher, what it remembers, and corrected labels"),
    "compose": Entry("compose", "Compose", "any losses by name, with their weights"),
}
