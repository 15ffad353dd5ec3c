"""Time the weighted adaptive wing loss, from maps and from landmarks: forward and backward."""

import pytest
import torch

from robustfer.functional import adaptive_wing, landmark_adaptive_wing, render_heatmaps

SHAPES = [(128, 19, 56), (8, 19, 28)]
ALPHA, OMEGA, EPSILON, THETA = 2.1, 14.0, 1.0, 0.5


def literal(prediction, target, weights):
    """Compute both branches of the equation by boolean indexing into a tensor of zeros."""
    distance, exponent = (target - prediction).abs(), ALPHA - target
    loss = torch.zeros_like(distance)
    near, far = distance < THETA, distance >= THETA
    loss[near] = OMEGA * torch.log(1 + (distance[near] / EPSILON) ** exponent[near])
    bend = (THETA / EPSILON) ** exponent[far]
    lower = (THETA / EPSILON) ** (exponent[far] - 1)
    a = OMEGA * (1 / (1 + bend)) * exponent[far] * lower / EPSILON
    c = THETA * a - OMEGA * torch.log(1 + bend)
    loss[far] = a * distance[far] - c
    return (loss * weights).mean()


def plain(prediction, target, weights):
    """Compute both branches everywhere, and choose with torch.where."""
    distance, exponent = (target - prediction).abs(), ALPHA - target
    bend = (THETA / EPSILON) ** exponent
    a = OMEGA * exponent * bend / (THETA * (1 + bend))
    c = THETA * a - OMEGA * torch.log1p(bend)
    curved = OMEGA * torch.log1p((distance / EPSILON) ** exponent)
    return (torch.where(distance < THETA, curved, a * distance - c) * weights).mean()


def sized(shape, device):
    """Return landmarks in pixels, their maps and weights, and inexact predictions."""
    batch, points, side = shape
    generator = torch.Generator().manual_seed(0)
    landmarks = (4 * side - 1) * torch.rand(batch, points, 2, generator=generator)
    noise = 0.1 * torch.randn(batch, points, side, side, generator=generator)
    target, weights = render_heatmaps(landmarks, image_size=4 * side, heatmap_size=side)
    prediction = (target + noise).to(device).requires_grad_()
    return prediction, landmarks.to(device), target.to(device), weights.to(device)


@pytest.mark.parametrize("form", [literal, plain, adaptive_wing], ids=["literal", "plain", "ours"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_from_maps(compare, device, shape, form):
    prediction, _, target, weights = sized(shape, device)

    def gradient(function=form):
        return torch.autograd.grad(function(prediction, target, weights), prediction)[0]

    torch.testing.assert_close(gradient(), gradient(plain), rtol=1e-3, atol=1e-9)
    name = "x".join(map(str, (*shape, shape[-1])))
    column = form.__name__ if form in (literal, plain) else "ours"
    compare(
        gradient,
        group=f"adaptive wing {name}",
        column=column,
        plain=lambda: gradient(plain),
        min_rounds=10,
    )


@pytest.mark.parametrize("form", ["literal", "plain", "ours"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_from_landmarks(compare, device, shape, form):
    """The other contenders get maps and weights precomputed."""
    prediction, landmarks, target, weights = sized(shape, device)
    side = shape[-1]
    losses = {
        "literal": lambda: literal(prediction, target, weights),
        "plain": lambda: plain(prediction, target, weights),
        "ours": lambda: landmark_adaptive_wing(prediction, landmarks, image_size=4 * side),
    }

    def gradient(name=form):
        return torch.autograd.grad(losses[name](), prediction)[0]

    torch.testing.assert_close(gradient(), gradient("plain"), rtol=1e-3, atol=1e-9)
    name = "x".join(map(str, (*shape, side)))
    compare(
        gradient,
        group=f"adaptive wing from landmarks {name}",
        column=form,
        plain=lambda: gradient("plain"),
        min_rounds=10,
    )
