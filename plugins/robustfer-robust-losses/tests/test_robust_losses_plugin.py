"""The package as robustfer finds it, once it is installed."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from robustfer import registry
from robustfer.losses import CompositeLoss, Term
from robustfer.testing import PluginConformance
from robustfer_robust_losses import losses, robustfer_losses

README = Path(__file__).parents[1] / "README.md"
NAMES = [component.name for component in robustfer_losses()]


class TestInstalled(PluginConformance):
    plugin = "robust_losses"
    readme = README

    def check_readme(self, names):
        assert isinstance(names["criterion"], losses.TruncatedGeneralizedCrossEntropyLoss)


@pytest.fixture(autouse=True)
def _this_plugin_alone(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "robust_losses")


def test_every_loss_is_listed_under_the_name_of_its_function_or_module():
    offered = {
        name: offer
        for name, offer in registry.available("losses").items()
        if offer.plugin == "robust_losses"
    }
    assert list(offered) == NAMES == sorted(NAMES)
    functions = {name for name in losses.__all__ if name.islower()}
    assert {*functions, "active_passive"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_made_by_name_and_learns(name):
    criterion = registry.create(name)
    assert isinstance(criterion, nn.Module)
    # Sure of the label, and not too sure: the truncated loss learns nothing from less.
    logits = (2.5 * torch.eye(7)).requires_grad_()
    criterion(logits, torch.arange(7)).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad.diagonal() < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_all_that_can_be_shown_is_said(name):
    described = registry.describe(f"robust_losses:{name}")
    assert not any(option.required for option in described.options)
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("target", "(B) int64 or (B, C) probabilities"),
    ]
    assert described.result == 'scalar, or (B) for "none"; float32 for half inputs'
    assert re.search(r"(AAAI|ICML|CVPR|ICCV|NeurIPS|ICLR) 20\d\d", described.reference)
    assert described.distribution == "robustfer-robust-losses"


def test_they_compose_as_the_core_s_do():
    composed = CompositeLoss(
        Term("error", registry.create("mean_absolute_error"), weight=2.0),
        Term("reverse", registry.create("reverse_cross_entropy")),
    )
    logits, target = torch.zeros(2, 4), torch.tensor([3, 0])
    assert composed.accepts == {"logits", "target"}
    expected = 2 * losses.mean_absolute_error(logits, target)
    expected += losses.reverse_cross_entropy(logits, target)
    torch.testing.assert_close(composed(logits=logits, target=target), expected)


def test_the_readme_names_every_loss():
    documented = re.findall(r"^\| `(\w+)` \|", README.read_text(), re.MULTILINE)
    assert sorted(documented) == NAMES
