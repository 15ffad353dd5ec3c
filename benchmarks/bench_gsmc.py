"""Time GSMC's loss from features and logits, with class maps: forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks import bench_attention
from robustfer.functional.attention import class_attention
from robustfer.losses import GSMCLoss

# With few channels the matrix products are small, so the other operations dominate.
SHAPES, CLASSES = [(128, 512, 7, 7), (128, 8, 7, 7)], 7
DISTILLATION, CONSISTENCY = 0.9, 0.2


def literal(f1, f2, weight, logits, teacher_logits, target):
    """Follow the equations: logarithms of probabilities, one-hot labels."""
    p, q = logits.softmax(1), teacher_logits.softmax(1)
    entropy = -(F.one_hot(target, CLASSES) * p.log()).sum(1).mean()
    divergence = (q * (q.log() - p.log())).sum(1).mean()
    consistency = bench_attention.literal(f1, f2, weight)
    return entropy + DISTILLATION * divergence + CONSISTENCY * consistency


def plain(f1, f2, weight, logits, teacher_logits, target):
    """Use torch's fused operations."""
    entropy = F.cross_entropy(logits, target)
    divergence = F.kl_div(logits.log_softmax(1), teacher_logits.softmax(1), reduction="batchmean")
    consistency = bench_attention.plain(f1, f2, weight)
    return entropy + DISTILLATION * divergence + CONSISTENCY * consistency


criterion = GSMCLoss(distillation_weight=DISTILLATION, consistency_weight=CONSISTENCY)


def ours(f1, f2, weight, logits, teacher_logits, target):
    maps, maps_flipped = class_attention(f1, weight), class_attention(f2, weight)
    return criterion(logits, target, teacher_logits, maps, maps_flipped)


@pytest.mark.parametrize("form", [literal, plain, ours], ids=lambda form: form.__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_gsmc(compare, device, shape, form):
    generator = torch.Generator().manual_seed(0)
    f1, f2 = (torch.rand(shape, generator=generator).to(device).requires_grad_() for _ in "12")
    weight = torch.randn(CLASSES, shape[1], generator=generator).to(device)
    logits, teacher = torch.randn(2, shape[0], CLASSES, generator=generator).to(device)
    logits.requires_grad_()
    target = torch.randint(CLASSES, shape[:1], generator=generator).to(device)

    def gradients(function=form):
        value = function(f1, f2, weight, logits, teacher, target)
        return torch.autograd.grad(value, (f1, f2, logits))

    for found, expected in zip(gradients(), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    name = "x".join(map(str, shape))
    group = f"GSMC total {name}"
    compare(gradients, group=group, column=form.__name__, plain=lambda: gradients(plain))
