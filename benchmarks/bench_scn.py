"""Time SCN's loss after two linear layers: weighting, cross entropy, ranking, and backward."""

import pytest
import torch
import torch.nn.functional as F

from robustfer.losses import SCNLoss

BATCHES = [64, 256, 1024]
CLASSES, MARGIN, HIGH_RATIO = 7, 0.15, 0.7


def literal(scores, logits, target):
    """Select each group, and read the difference on the host."""
    importance = torch.sigmoid(scores)
    entropy = F.cross_entropy(importance[:, None] * logits, target)
    high = int(len(importance) * HIGH_RATIO)
    top, _ = torch.topk(importance, high)
    low, _ = torch.topk(importance, len(importance) - high, largest=False)
    difference = low.mean() - top.mean() + MARGIN
    rank = difference if difference > 0 else 0.0
    return 0.5 * entropy + 0.5 * rank


def plain(scores, logits, target):
    """Sort once, and take two slices."""
    importance = torch.sigmoid(scores)
    entropy = F.cross_entropy(importance[:, None] * logits, target)
    ordered = importance.sort(descending=True).values
    high = int(len(ordered) * HIGH_RATIO)
    rank = F.relu(ordered[high:].mean() - ordered[:high].mean() + MARGIN)
    return 0.5 * entropy + 0.5 * rank


criterion = SCNLoss(margin=MARGIN, high_ratio=HIGH_RATIO)


def ours(scores, logits, target):
    return criterion(logits, target, torch.sigmoid(scores))


@pytest.mark.parametrize("form", [literal, plain, ours], ids=lambda form: form.__name__)
@pytest.mark.parametrize("batch", BATCHES)
def test_scn(compare, device, batch, form):
    generator = torch.Generator().manual_seed(0)
    scores = (0.2 * torch.randn(batch, generator=generator)).to(device).requires_grad_()
    logits = torch.randn(batch, CLASSES, generator=generator).to(device).requires_grad_()
    target = torch.randint(CLASSES, (batch,), generator=generator).to(device)

    def gradients(function=form):
        return torch.autograd.grad(function(scores, logits, target), (scores, logits))

    for found, expected in zip(gradients(), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    compare(
        gradients,
        group=f"SCN loss {batch}x{CLASSES}",
        column=form.__name__,
        plain=lambda: gradients(plain),
        min_rounds=300,
    )
