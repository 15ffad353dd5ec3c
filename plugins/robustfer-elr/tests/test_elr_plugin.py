"""The package as robustfer finds it, once it is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustfer import registry
from robustfer_elr.losses import EarlyLearningLoss, MemoryTargetLoss

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def _this_plugin_alone(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "elr")


def test_it_is_listed_and_made_by_name():
    assert registry.available("losses")["early_learning_regularization"].plugin == "elr"
    criterion = registry.create(
        "early_learning_regularization", num_samples=10, num_classes=7, weight=7.0
    )
    assert type(criterion) is EarlyLearningLoss
    assert criterion.weight == 7.0


def test_all_that_can_be_shown_is_said():
    described = registry.describe("elr:early_learning_regularization")
    assert [str(option) for option in described.options] == [
        *("num_samples", "num_classes"),
        *("momentum=0.7", "weight=3.0"),
    ]
    assert all(option.meaning for option in described.options)
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("target", "(B) int64 or (B, C) probabilities"),
        ("early_target", "(B, C)"),
    ]
    assert described.result == "scalar; float32 for half inputs"
    assert "NeurIPS 2020" in described.reference
    assert described.distribution == "robustfer-elr"


def test_memory_targets_are_listed_made_and_shown_by_name():
    assert registry.available("losses")["memory_targets"].plugin == "elr"
    criterion = registry.create("memory_targets", num_samples=10, num_classes=7, weight=0.5)
    assert type(criterion) is MemoryTargetLoss
    described = registry.describe("elr:memory_targets")
    assert [str(option) for option in described.options] == [
        *("num_samples", "num_classes"),
        *("momentum=0.9", "weight=0.6"),
    ]
    assert all(option.meaning for option in described.options)
    assert [tensor.name for tensor in described.tensors] == ["logits", "target", "early_target"]
    assert "ICLR 2017" in described.reference


def test_the_module_with_the_hooks_loads_no_torch():
    code = (
        "import sys, robustfer_elr; robustfer_elr.robustfer_losses(); print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("False\n", "")


def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["accuracy"]["elr"] > names["accuracy"]["cross entropy"] + 0.05
    assert names["accuracy"]["memory targets"] > names["accuracy"]["cross entropy"] + 0.02
    assert names["composed"].proposes == {"early_target"}
