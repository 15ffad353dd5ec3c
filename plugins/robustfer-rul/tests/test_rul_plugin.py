"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest
import torch

from robustfer import registry
from robustfer.testing import PluginConformance
from robustfer_rul.losses import RelativeUncertaintyLoss


class TestInstalled(PluginConformance):
    plugin = "rul"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        assert isinstance(names["criterion"], RelativeUncertaintyLoss)
        assert names["logits"].shape == (8, 7)


@pytest.fixture(autouse=True)
def _this_plugin_alone(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "rul")


def test_it_is_listed_and_made_by_name():
    assert registry.available("losses")["relative_uncertainty"].plugin == "rul"
    criterion = registry.create("relative_uncertainty", num_features=8)
    assert type(criterion) is RelativeUncertaintyLoss
    assert criterion.log_variance.weight.shape == (8, 8)


def test_a_loss_made_by_name_is_watched_over():
    criterion = registry.create("relative_uncertainty", num_features=4)
    classifier, target = torch.nn.Linear(4, 3), torch.tensor([2, 0])
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)  # forgets the loss
    criterion(torch.eye(2, 4), target, classifier.weight, torch.tensor([1, 0])).backward()
    optimizer.step()
    with pytest.warns(UserWarning, match="holds log_variance.weight of RelativeUncertaintyLoss"):
        optimizer.step()


def test_all_that_can_be_shown_is_said():
    described = registry.describe("rul:relative_uncertainty")
    assert [str(option) for option in described.options] == ["num_features"]
    assert all(option.meaning and option.required for option in described.options)
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("embeddings", "(B, D) that the classifier reads"),
        ("target", "(B) int64 or (B, C) probabilities"),
        ("classifier_weight", "(C, D) the parameter itself"),
        ("permutation", "(B) int64 the partner of each sample"),
        ("bias", "(C) of the classifier"),
    ]
    assert described.result == "scalar; float32 for half embeddings"
    assert "NeurIPS 2021" in described.reference
    assert described.distribution == "robustfer-rul"
