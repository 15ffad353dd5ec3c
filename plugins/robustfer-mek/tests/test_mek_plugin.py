"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest

from robustfer import registry
from robustfer.testing import PluginConformance
from robustfer_mek.losses import ExtraKnowledgeLoss


class TestInstalled(PluginConformance):
    plugin = "mek"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        assert isinstance(names["criterion"], ExtraKnowledgeLoss)
        assert names["loss"].isfinite()


@pytest.fixture(autouse=True)
def _only_this_plugin(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "mek")


def test_it_is_listed_and_made_by_name():
    assert registry.available("losses")["extra_knowledge"].plugin == "mek"
    criterion = registry.create("extra_knowledge", smoothing=0.1)
    assert type(criterion) is ExtraKnowledgeLoss
    assert criterion.smoothing == 0.1


def test_all_that_can_be_shown_is_said():
    described = registry.describe("mek:extra_knowledge")
    assert [str(option) for option in described.options] == [
        "consistency_weight=0.1",
        "smoothing=0.3",
    ]
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("target", "(B) int64 or (B, C) probabilities"),
        ("attention", "(B, C, H, W)"),
        ("attention_flipped", "(B, C, H, W)"),
        ("class_counts", "(C) of any dtype"),
    ]
    assert described.result == "scalar; float32 for half inputs"
    assert "NeurIPS 2023" in described.reference
    assert described.distribution == "robustfer-mek"
