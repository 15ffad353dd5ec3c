"""Generalized cross entropy against the paper's equation, its limits, and robustfer's checks."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.losses import check_values
from robustfer.testing import LossConformance
from robustfer_gce.losses import GeneralizedCrossEntropyLoss, generalized_cross_entropy


class TestGeneralizedCrossEntropy(LossConformance):
    def make_loss(self):
        return GeneralizedCrossEntropyLoss(q=0.6)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


class TestWithProbabilities(TestGeneralizedCrossEntropy):
    per_sample = True

    def make_loss(self):
        return GeneralizedCrossEntropyLoss(q=0.6, reduction="none")

    def make_inputs(self, *, batch, classes, dtype, generator):
        logits, votes = torch.randn(2, batch, classes, dtype=dtype, generator=generator)
        return {"logits": logits, "target": votes.softmax(dim=1)}


def written_out(logits, target, q):
    """The equation of the paper, sample by sample, in Python's own numbers."""
    losses = []
    for row, label in zip(logits.tolist(), target.tolist(), strict=True):
        p = math.exp(row[label]) / sum(math.exp(score) for score in row)
        losses.append((1 - p**q) / q)
    return torch.tensor(losses, dtype=torch.float64)


def sample(classes=7, batch=16, scale=2.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(batch, classes, dtype=torch.float64, generator=generator)
    return logits, torch.randint(classes, (batch,), generator=generator)


@pytest.mark.parametrize("q", [0.05, 0.3, 0.7, 1.0])
def test_it_is_the_equation_of_the_paper(q):
    logits, target = sample()
    expected = written_out(logits, target, q)
    for reduction, value in (
        ("none", expected),
        ("mean", expected.mean()),
        ("sum", expected.sum()),
    ):
        result = generalized_cross_entropy(logits, target, q=q, reduction=reduction)
        torch.testing.assert_close(result, value, rtol=1e-12, atol=1e-12)


def test_near_zero_it_is_cross_entropy_in_float32_too():
    logits, target = sample()
    for dtype, q in ((torch.float64, 1e-9), (torch.float32, 1e-7)):
        result = generalized_cross_entropy(logits.to(dtype), target, q=q)
        torch.testing.assert_close(result, F.cross_entropy(logits.to(dtype), target))


def test_at_one_it_is_half_the_absolute_error():
    logits, target = sample()
    absolute = (F.one_hot(target, 7) - logits.softmax(dim=1)).abs().sum(dim=1)
    torch.testing.assert_close(
        generalized_cross_entropy(logits, target, q=1.0, reduction="none"), absolute / 2
    )


def test_its_gradient_is_that_of_cross_entropy_times_the_belief():
    logits, target = sample()
    logits.requires_grad_()
    believed = logits.softmax(dim=1).gather(1, target[:, None]).detach()
    loss = generalized_cross_entropy(logits, target, q=0.7, reduction="sum")
    plain = F.cross_entropy(logits, target, reduction="sum")
    [gradient], [of_plain] = torch.autograd.grad(loss, logits), torch.autograd.grad(plain, logits)
    torch.testing.assert_close(gradient, believed**0.7 * of_plain)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 30), st.floats(0.01, 1.0), st.floats(0.0, 30.0))
def test_the_sum_over_all_labels_is_bounded(classes, q, scale):
    """Why it is robust: the paper's bounds under noise rest on this one."""
    logits, _ = sample(classes, batch=1, scale=scale)
    every_label = torch.arange(classes)
    losses = generalized_cross_entropy(
        logits.expand(classes, -1), every_label, q=q, reduction="sum"
    )
    low, high = (classes - classes ** (1 - q)) / q, (classes - 1) / q
    assert low - 1e-9 <= losses.item() <= high + 1e-9


def test_probabilities_are_a_mean_over_labels():
    logits, target = sample()
    one_hot = F.one_hot(target, 7).double()
    of_classes = generalized_cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(
        generalized_cross_entropy(logits, one_hot, reduction="none"), of_classes
    )
    other = (target + 1) % 7
    mixed = 0.75 * one_hot + 0.25 * F.one_hot(other, 7)
    torch.testing.assert_close(
        generalized_cross_entropy(logits, mixed, reduction="none"),
        0.75 * of_classes + 0.25 * generalized_cross_entropy(logits, other, reduction="none"),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_label_out_of_all_belief_has_a_gradient_that_is_no_nan(dtype):
    logits = torch.tensor([[300.0, 0.0, -300.0]], dtype=dtype, requires_grad=True)
    loss = generalized_cross_entropy(logits, torch.tensor([2]), q=0.5)
    loss.backward()
    assert loss.item() == 2.0  # 1 / q, its bound
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("q", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_q_out_of_range(q):
    with pytest.raises(ValueError, match=r"^q must lie in \(0, 1\], got"):
        GeneralizedCrossEntropyLoss(q=q)
    with pytest.raises(ValueError, match=r"^q must lie in \(0, 1\], got"):
        generalized_cross_entropy(*sample(), q=q)


def test_an_unknown_reduction():
    with pytest.raises(ValueError, match="^reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        GeneralizedCrossEntropyLoss(reduction="avg")
    with pytest.raises(ValueError, match="^reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        generalized_cross_entropy(*sample(), reduction="avg")


def test_arguments_that_do_not_fit():
    logits, target = sample()
    for wrong, message in (
        ((logits[:3], target), r"target has B=16 but logits has B=3"),
        ((logits, target.int()), r"target must be int64 class indices .* got torch.int32"),
        ((logits, F.one_hot(target, 7)), "for one-hot rows use target.float"),
        ((logits[0], target), r"logits must have shape \(B, C\), got \(7\)"),
        ((logits.long(), target), r"logits must have a floating-point dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            generalized_cross_entropy(*wrong)
    with check_values(), pytest.raises(ValueError, match="class indices from 0 to 6, got 7"):
        generalized_cross_entropy(logits, target.clone().fill_(7))


@pytest.mark.parametrize("label", [-100, -1, 7])
def test_no_label_is_left_out(label):
    logits, target = sample()
    target[1] = label
    with pytest.raises(IndexError, match=f"0 to 6, got {label} at position 1. If your labels"):
        generalized_cross_entropy(logits, target)


def test_the_module_says_how_it_was_made():
    criterion = GeneralizedCrossEntropyLoss(q=0.5, reduction="sum")
    assert repr(criterion) == "GeneralizedCrossEntropyLoss(q=0.5, reduction='sum')"
    assert GeneralizedCrossEntropyLoss().q == 0.7
    logits, target = sample()
    expected = generalized_cross_entropy(logits, target, q=0.5, reduction="sum")
    torch.testing.assert_close(criterion(logits, target), expected)
