"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest

from robustfer import registry
from robustfer.testing import PluginConformance
from robustfer_gce.losses import GeneralizedCrossEntropyLoss


class TestInstalled(PluginConformance):
    plugin = "gce"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        assert isinstance(names["criterion"], GeneralizedCrossEntropyLoss)


@pytest.fixture(autouse=True)
def _this_plugin_alone(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "gce")


def test_it_is_listed_and_made_by_name():
    assert registry.available("losses")["generalized_cross_entropy"].plugin == "gce"
    criterion = registry.create("generalized_cross_entropy", q=0.5)
    assert type(criterion) is GeneralizedCrossEntropyLoss
    assert criterion.q == 0.5


def test_all_that_can_be_shown_is_said():
    described = registry.describe("gce:generalized_cross_entropy")
    assert [str(option) for option in described.options] == ["q=0.7", "reduction='mean'"]
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("target", "(B) int64 or (B, C) probabilities"),
    ]
    assert described.result == 'scalar, or (B) for "none"; float32 for half inputs'
    assert "NeurIPS 2018" in described.reference
    assert described.distribution == "robustfer-gce"
