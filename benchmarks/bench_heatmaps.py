"""Time heat maps of landmarks and the weights of their cells. Targets need no gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustfer.functional import render_heatmaps

BATCH, POINTS, IMAGE, MAP = 128, 19, 224, 56
SIGMA, RADIUS = 1.5, 4.5


def one_map(x, y):
    """Paste a Gaussian patch into a map. Cells with a neighbour above 0.2 weigh 10."""
    left, right = max(int(np.ceil(x - RADIUS)), 0), min(int(x + RADIUS) + 1, MAP)
    top, bottom = max(int(np.ceil(y - RADIUS)), 0), min(int(y + RADIUS) + 1, MAP)
    column, row = np.arange(left, right), np.arange(top, bottom)[:, None]
    heatmap = np.zeros((MAP, MAP), dtype=np.float32)
    heatmap[top:bottom, left:right] = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * SIGMA**2))
    padded = np.pad(heatmap, 1)
    tall = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    widened = np.maximum(np.maximum(tall[:, :-2], tall[:, 1:-1]), tall[:, 2:])
    return heatmap, np.where(widened > 0.2, np.float32(10), np.float32(1))


def literal(landmarks):
    """Draw landmark by landmark in numpy, then stack."""
    points = (landmarks.cpu().numpy() + 0.5) * (MAP / IMAGE) - 0.5
    maps = [one_map(x, y) for sample in points for x, y in sample]
    stacked = (np.stack(kind).reshape(BATCH, POINTS, MAP, MAP) for kind in zip(*maps, strict=True))
    return tuple(torch.from_numpy(kind).to(landmarks.device) for kind in stacked)


def plain(landmarks):
    """Compute outer products of Gaussians, max-pooled along each axis."""
    cell = torch.arange(MAP, device=landmarks.device)
    distance = cell - ((landmarks + 0.5) * (MAP / IMAGE) - 0.5)[..., None]
    profile = torch.exp(distance.square() / (-2 * SIGMA**2)) * (distance.abs() <= RADIUS)
    x, y = profile.unbind(2)
    maps = y[..., :, None] * x[..., None, :]
    x, y = F.max_pool1d(x, 3, 1, 1), F.max_pool1d(y, 3, 1, 1)
    return maps, torch.where(y[..., :, None] * x[..., None, :] > 0.2, 10.0, 1.0)


def ours(landmarks):
    return render_heatmaps(landmarks, image_size=IMAGE, heatmap_size=MAP)


@pytest.mark.parametrize("form", [literal, plain, ours], ids=lambda form: form.__name__)
def test_heatmaps(compare, device, form):
    generator = torch.Generator().manual_seed(0)
    landmarks = (IMAGE - 1) * torch.rand(BATCH, POINTS, 2, generator=generator).to(device)
    for found, expected in zip(form(landmarks), ours(landmarks), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    compare(
        lambda: form(landmarks),
        group=f"heat maps {BATCH}x{POINTS}x{MAP}x{MAP}",
        column=form.__name__,
        plain=lambda: plain(landmarks),
        min_rounds=40,
    )
