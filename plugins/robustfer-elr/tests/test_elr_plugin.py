"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest

from robustfer import registry
from robustfer.testing import PluginConformance
from robustfer_elr.losses import EarlyLearningLoss, MemoryTargetLoss


class TestInstalled(PluginConformance):
    plugin = "elr"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        assert names["accuracy"]["elr"] > names["accuracy"]["cross entropy"] + 0.05
        assert names["accuracy"]["memory targets"] > names["accuracy"]["cross entropy"] + 0.02
        assert names["composed"].proposes == {"early_target"}


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
        *("decay=0.7", "weight=3.0"),
    ]
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
        *("decay=0.9", "weight=0.6"),
    ]
    assert [tensor.name for tensor in described.tensors] == ["logits", "target", "early_target"]
    assert "ICLR 2017" in described.reference
