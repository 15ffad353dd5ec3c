"""What the papers prove of the losses, their limits, and what they are where they coincide."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer_robust_losses.losses import (
    ActivePassiveLoss,
    TruncatedGeneralizedCrossEntropyLoss,
    hard_bootstrapping,
    mean_absolute_error,
    normalized_cross_entropy,
    normalized_generalized_cross_entropy,
    reverse_cross_entropy,
    soft_bootstrapping,
    symmetric_cross_entropy,
    truncated_generalized_cross_entropy,
)

cases = given(
    classes=st.integers(2, 20),
    scale=st.floats(0.0, 30.0),
    seed=st.integers(0, 2**32 - 1),
)
few = settings(deadline=None, max_examples=25)

# Losses that sum over all labels to a constant, given the number of classes.
SYMMETRIC = {
    "mean_absolute_error": (mean_absolute_error, lambda classes: classes - 1),
    "reverse_cross_entropy": (
        reverse_cross_entropy,
        lambda classes: -math.log(1e-4) * (classes - 1),
    ),
    "normalized_cross_entropy": (normalized_cross_entropy, lambda classes: 1),
    "normalized_generalized_cross_entropy": (
        normalized_generalized_cross_entropy,
        lambda classes: 1,
    ),
    "active_passive": (
        lambda logits, target, reduction: ActivePassiveLoss(
            active_weight=3.0, passive_weight=0.5, reduction=reduction
        )(logits, target),
        lambda classes: 3 + 0.5 * (classes - 1),
    ),
}


def sample(classes=7, scale=2.0, seed=0, batch=16):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(batch, classes, dtype=torch.float64, generator=generator)
    return logits, torch.randint(classes, (batch,), generator=generator)


def of_every_label(loss, row):
    """The loss (C) of one row of logits under each label."""
    classes = len(row)
    return loss(row.expand(classes, -1), torch.arange(classes), reduction="none")


def gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits), logits)[0]


@pytest.mark.parametrize("name", SYMMETRIC)
@few
@cases
def test_the_sum_over_all_labels_is_constant(name, classes, scale, seed):
    """So symmetric noise changes the scale and the offset of the loss, but not its minimum."""
    loss, total = SYMMETRIC[name]
    values = of_every_label(loss, sample(classes, scale, seed, batch=1)[0][0])
    assert values.min() >= 0
    assert values.sum().item() == pytest.approx(total(classes), rel=1e-9)


@pytest.mark.parametrize("loss", [normalized_cross_entropy, normalized_generalized_cross_entropy])
@few
@cases
def test_what_is_normalized_is_at_most_one(loss, classes, scale, seed):
    values = loss(*sample(classes, scale, seed), reduction="none")
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@few
@cases
def test_relations_between_the_losses(classes, scale, seed):
    logits, target = sample(classes, scale, seed)
    error = mean_absolute_error(logits, target)
    reverse = reverse_cross_entropy(logits, target)
    plain = F.cross_entropy(logits, target)
    torch.testing.assert_close(reverse, -math.log(1e-4) * error)
    torch.testing.assert_close(
        symmetric_cross_entropy(logits, target, cross_entropy_weight=2.0, reverse_weight=3.0),
        2 * plain + 3 * reverse,
    )
    torch.testing.assert_close(
        normalized_generalized_cross_entropy(logits, target, q=1.0), error / (classes - 1)
    )
    torch.testing.assert_close(soft_bootstrapping(logits, target, label_weight=1.0), plain)
    torch.testing.assert_close(hard_bootstrapping(logits, target, label_weight=1.0), plain)
    torch.testing.assert_close(
        hard_bootstrapping(logits, logits.argmax(dim=1)),
        F.cross_entropy(logits, logits.argmax(dim=1)),
    )


@few
@cases
def test_truncated_is_generalized_cross_entropy_above_the_threshold(classes, scale, seed):
    logits, target = sample(classes, scale, seed)
    p = logits.softmax(dim=1).gather(1, target[:, None]).squeeze(1)
    q, threshold = 0.7, 0.4
    generalized, bound = (1 - p**q) / q, (1 - threshold**q) / q

    def loss(logits, threshold=threshold):
        return truncated_generalized_cross_entropy(
            logits, target, q=q, threshold=threshold, reduction="none"
        )

    torch.testing.assert_close(loss(logits), generalized.where(p > threshold, bound))
    torch.testing.assert_close(loss(logits, threshold=0.0), generalized)
    moved = gradient(lambda logits: loss(logits).sum(), logits)
    expected = gradient(lambda logits: loss(logits, threshold=0.0).sum(), logits)
    torch.testing.assert_close(moved, expected * (p > threshold)[:, None])


@pytest.mark.parametrize("floor", [1e-4, 1e-50, 1e-300])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_class_is_its_one_hot_row_for_any_floor(dtype, floor):
    logits, target = sample()
    logits = logits.to(dtype).requires_grad_()
    row = F.one_hot(target, 7).to(dtype).requires_grad_()
    of_row = reverse_cross_entropy(logits, row, floor=floor, reduction="none")
    of_class = reverse_cross_entropy(logits, target, floor=floor, reduction="none")
    torch.testing.assert_close(of_row, of_class, rtol=1e-5, atol=0)
    of_row.sum().backward()
    assert logits.grad.isfinite().all()
    # Zeros below the floor are constants.
    assert (row.grad[row == 0] == 0).all()
    assert (row.grad[row == 1] < 0).all()


def test_near_zero_q_is_cross_entropy_in_float32_too():
    logits, target = sample()
    for dtype, q in ((torch.float64, 1e-9), (torch.float32, 1e-7)):
        scores = logits.to(dtype)
        torch.testing.assert_close(
            truncated_generalized_cross_entropy(scores, target, q=q, threshold=0.0),
            F.cross_entropy(scores, target),
        )
        torch.testing.assert_close(
            normalized_generalized_cross_entropy(scores, target, q=q),
            normalized_cross_entropy(scores, target),
        )


def test_a_network_that_is_sure_of_nothing_learns_nothing_above_its_belief():
    logits, target = torch.zeros(4, 7), torch.arange(4)
    criterion = TruncatedGeneralizedCrossEntropyLoss()
    assert not gradient(lambda logits: criterion(logits, target), logits).any()
    criterion.threshold = 0.0
    assert gradient(lambda logits: criterion(logits, target), logits).any()


def test_the_threshold_may_change_after_compilation():
    logits, target = sample()
    criterion = TruncatedGeneralizedCrossEntropyLoss(threshold=0.0)
    torch.compiler.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    for threshold in (0.0, 0.2, 0.4, 0.5):
        criterion.threshold = threshold
        torch.testing.assert_close(compiled(logits, target), criterion(logits, target))


def test_soft_bootstrapping_is_cross_entropy_and_entropy():
    logits, target = sample()

    def parts(logits):
        entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
        return 0.9 * F.cross_entropy(logits, target) + 0.1 * entropy

    def loss(logits):
        return soft_bootstrapping(logits, target, label_weight=0.9)

    torch.testing.assert_close(loss(logits), parts(logits))
    torch.testing.assert_close(gradient(loss, logits), gradient(parts, logits))


def test_hard_bootstrapping_holds_the_likeliest_class_constant():
    logits, target = sample()
    likeliest = logits.argmax(dim=1)

    def parts(logits):
        return 0.8 * F.cross_entropy(logits, target) + 0.2 * F.cross_entropy(logits, likeliest)

    moved = gradient(lambda logits: hard_bootstrapping(logits, target), logits)
    torch.testing.assert_close(moved, gradient(parts, logits))
