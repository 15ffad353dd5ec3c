"""What a plugin's loss is written with."""

import pytest
import torch
import torch.nn.functional as F

from robustfer import authoring
from robustfer.losses import check_values


def test_an_option_is_one_of_its_words():
    with pytest.raises(ValueError, match="kind must be 'one' or 'other', got 'mine'"):
        authoring.check_choice("kind", "mine", ("one", "other"))


def test_floating_tensors_are_finite_where_values_are_checked():
    prior = torch.tensor([0.5, torch.nan])
    authoring.check_floating(prior=prior)
    with check_values(), pytest.raises(ValueError, match="prior must be finite"):
        authoring.check_floating(prior=prior)
    with pytest.raises(ValueError, match="index must have a floating-point dtype, got torch.int64"):
        authoring.check_floating(prior=prior, index=torch.tensor([0]))


def test_products_are_exact_under_autocast_and_on_every_device():
    one = torch.eye(2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (one @ one).dtype == torch.bfloat16
        with authoring.without_autocast(one):
            assert (one @ one).dtype == torch.float32
    meta = one.to("meta")
    with authoring.without_autocast(meta):
        assert (meta @ meta).device.type == "meta"


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_takes_classes_and_probabilities(reduction):
    logits = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 6, 3, 3, 1])
    expected = -logits.log_softmax(1)[range(5), target]
    for labels in (target, F.one_hot(target, 7).float()):
        found = authoring.cross_entropy(logits, labels, reduction=reduction)
        torch.testing.assert_close(found, authoring.reduce(expected, reduction))
        picked = authoring.at_label(-logits.log_softmax(1), labels)
        torch.testing.assert_close(authoring.reduce(picked, reduction), found)
