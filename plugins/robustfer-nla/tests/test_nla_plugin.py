"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest

from robustfer import registry
from robustfer.testing import PluginConformance
from robustfer_nla.losses import NoiseAwareWeightingLoss


class TestInstalled(PluginConformance):
    plugin = "nla"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        assert names["loss"].isfinite()
        assert names["progress"] == 0.5


@pytest.fixture(autouse=True)
def _only_this_plugin(monkeypatch):
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "nla")


def test_it_is_listed_and_made_by_name():
    assert registry.available("losses")["noise_aware_weighting"].plugin == "nla"
    criterion = registry.create("noise_aware_weighting", variant="official")
    assert type(criterion) is NoiseAwareWeightingLoss
    assert criterion.variant == "official"


def test_all_that_can_be_shown_is_said():
    described = registry.describe("nla:noise_aware_weighting")
    assert [str(option) for option in described.options] == [
        *("label_weight=0.5", "agreed_weight=1.0", "variant='paper'"),
    ]
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("logits_flipped", "(B, C) of the mirror image"),
        ("target", "(B) int64 or (B, C) probabilities"),
        ("progress", "() share of the training that is done"),
    ]
    assert described.result == "scalar; float32 for half inputs"
    assert "AAAI 2025" in described.reference
    assert described.distribution == "robustfer-nla"
