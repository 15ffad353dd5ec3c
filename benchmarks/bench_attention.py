"""Time the pair of class maps with their consistency: forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from robustfer.functional import attention_consistency
from robustfer.functional.attention import class_attention

SHAPES = [(32, 2048, 7, 7), (128, 512, 7, 7)]
CLASSES = 7


def literal(f1, f2, weight):
    """Follow the equations: a product per class, channel and location, and a sampling grid."""

    def maps(features):
        product = weight.detach()[None, :, :, None, None] * features[:, None]
        return product.sum(2)

    batch, _, height, width = f1.shape
    y = torch.linspace(-1, 1, height, device=f1.device)
    x = torch.linspace(-1, 1, width, device=f1.device)
    grid = torch.stack([-x.expand(height, width), y[:, None].expand(height, width)], -1)
    mirrored = F.grid_sample(
        maps(f2), grid.expand(batch, -1, -1, -1), padding_mode="border", align_corners=True
    )
    return F.mse_loss(maps(f1), mirrored)


def plain(f1, f2, weight):
    """Compute one matrix product, a flip, and a mean square."""

    def maps(features):
        return (weight.detach() @ features.flatten(2)).view(-1, len(weight), *features.shape[2:])

    return F.mse_loss(maps(f1), maps(f2).flip(-1))


def ours(f1, f2, weight):
    return attention_consistency(class_attention(f1, weight), class_attention(f2, weight))


@pytest.mark.parametrize("form", [literal, plain, ours], ids=lambda form: form.__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_class_maps_with_consistency(compare, device, shape, form):
    generator = torch.Generator().manual_seed(0)
    f1, f2 = (torch.rand(shape, generator=generator).to(device).requires_grad_() for _ in "12")
    weight = torch.randn(CLASSES, shape[1], generator=generator).to(device)

    def gradients(function=form):
        return torch.autograd.grad(function(f1, f2, weight), (f1, f2))

    for found, expected in zip(gradients(), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    name = "x".join(map(str, shape))
    group = f"class maps and consistency {name}"
    compare(gradients, group=group, column=form.__name__, plain=lambda: gradients(plain))
