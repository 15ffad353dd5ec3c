"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest
import torch

from robustfer import registry
from robustfer.losses import param_groups
from robustfer.testing import PluginConformance
from robustfer_sop.losses import (
    SparseOverParameterizationLoss,
    SparseOverParameterizationPlusLoss,
)

SIZES = {"num_samples": 10, "num_classes": 7, "batch_size": 4}


class TestInstalled(PluginConformance):
    plugin = "sop"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        assert names["accuracy"] > names["published_accuracy"] + 0.05
        wrong = names["given"] != names["clean"]
        assert names["doubt"][wrong].mean() > 10 * names["doubt"][~wrong].mean()
        assert len(names["terms"]) == 4


@pytest.fixture(autouse=True)
def _only_this_plugin(monkeypatch):
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "sop")


def test_they_are_listed_and_made_by_name():
    found = {name for name, offer in registry.available("losses").items() if offer.plugin == "sop"}
    name = "sparse_over_parameterization"
    assert found == {name, f"{name}_plus"}
    assert type(registry.create(name, **SIZES)) is SparseOverParameterizationLoss
    assert type(registry.create(f"{name}_plus", **SIZES)) is SparseOverParameterizationPlusLoss


def test_all_that_can_be_shown_is_said():
    plain, plus = (
        registry.describe(f"sop:sparse_over_parameterization{end}") for end in ("", "_plus")
    )
    own = [
        *("num_samples", "num_classes", "batch_size"),
        *("lr_u=1.0", "lr_v=10.0", "init_std=0.01"),
    ]
    assert [str(option) for option in plain.options] == own
    assert [str(option) for option in plus.options] == [
        *own,
        *("consistency_weight=0.9", "balance_weight=0.1"),
    ]
    assert [tensor.name for tensor in plain.tensors] == ["logits", "target", "index"]
    assert [(tensor.name, tensor.shape) for tensor in plus.tensors] == [
        ("logits", "(B, C)"),
        ("logits_flipped", "(B, C) of the other view"),
        ("target", "(B) int64 or (B, C) probabilities"),
        ("index", "(B) int64 rows of the samples in the data set"),
    ]
    for described in (plain, plus):
        assert described.result == "scalar; float32 for half logits"
        assert "ICML 2022" in described.reference
        assert described.distribution == "robustfer-sop"


def test_an_optimizer_with_momentum_of_another_kind_is_warned_of():
    criterion = registry.create("sparse_over_parameterization", **SIZES)
    model, index = torch.nn.Linear(3, 7), torch.arange(4)
    optimizer = torch.optim.AdamW(param_groups(model, criterion), lr=1e-3)
    criterion(model(torch.rand(4, 3)), index, index).backward()
    with pytest.warns(UserWarning, match="AdamW does not know momentum"):
        optimizer.step()
