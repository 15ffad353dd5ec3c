"""List the methods by the name of their command."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from examples.train.methods.base import Method


class Entry(NamedTuple):
    """A method's place and summary, without importing it."""

    module: str
    name: str
    summary: str

    def load(self) -> type[Method]:
        """Import the method's class."""
        found: type[Method] = getattr(import_module(f"{__name__}.{self.module}"), self.name)
        return found


#: Command -> its method.
METHODS: dict[str, Entry] = {
    "ce": Entry("cross_entropy", "CrossEntropy", "cross entropy, the baseline"),
    "eac": Entry("eac", "EAC", "class maps that agree with those of the mirror image"),
    "scn": Entry("scn", "SCN", "importance weights, their ranking, and relabelling"),
    "gsmc": Entry("gsmc", "GSMC", "an average of the network as teacher, class maps that agree"),
    "lanet": Entry("lanet", "LANet", "label distributions, and a contrast with landmarks"),
    "forward": Entry("forward", "Forward", "a loss that knows how often labels are wrong"),
    "teacher": Entry(
        "teacher", "Teacher", "an average of the network as teacher, landmarks, a memory"
    ),
    "retrain": Entry("retrain", "Retrain", "a second training, on labels that the first corrects"),
    "compose": Entry("compose", "Compose", "any losses by name, with weights"),
}
