"""Time forward correction: forward and backward."""

import pytest
import torch

from robustfer.functional import forward_correction

SHAPES = [(128, 7), (1024, 7), (128, 200)]


def literal(logits, target, transition):
    """Follow the equation in a loop over the batch: a product of probabilities, its logarithm."""
    p = logits.softmax(dim=1)
    losses = [-(row @ transition[:, label]).log() for row, label in zip(p, target, strict=True)]
    return torch.stack(losses).mean()


def plain(logits, target, transition):
    """Compute the whole batch at once. It is not finite if the product rounds to 0."""
    given = logits.softmax(dim=1) @ transition
    return -given.gather(1, target[:, None]).log().mean()


@pytest.mark.parametrize(
    "form", [literal, plain, forward_correction], ids=["literal", "plain", "ours"]
)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_forward_correction(compare, device, shape, form):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
    target = torch.randint(shape[1], shape[:1], generator=generator).to(device)
    transition = torch.randn(shape[1], shape[1], generator=generator).softmax(dim=1).to(device)

    def gradients(function=form):
        return torch.autograd.grad(function(logits, target, transition), logits)

    torch.testing.assert_close(gradients()[0], gradients(literal)[0], rtol=1e-3, atol=1e-7)
    name = "x".join(map(str, shape))
    column = "ours" if form is forward_correction else form.__name__
    compare(
        gradients,
        group=f"forward correction {name}",
        column=column,
        plain=lambda: gradients(plain),
    )
