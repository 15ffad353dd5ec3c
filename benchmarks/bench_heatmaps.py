"""Heat maps of landmarks and the weights of their cells, no gradients: they are targets."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustfer.functional import render_heatmaps

BATCH, POINTS, IMAGE, MAP = 128, 19, 224, 56
SIGMA, RADIUS = 1.5, 4.5


def literal(landmarks):
    """Landmark by landmark: a patch pasted into a numpy map, widened by 3 x 3, thresholded."""
    maps = np.zeros((BATCH, POINTS, MAP, MAP), dtype=np.float32)
    weights = np.ones_like(maps)
    points = landmarks.cpu().numpy()
    for n in range(BATCH):
        for k in range(POINTS):
            x, y = (points[n, k] + 0.5) * (MAP / IMAGE) - 0.5
            left, right = max(int(np.ceil(x - RADIUS)), 0), min(int(x + RADIUS) + 1, MAP)
            top, bottom = max(int(np.ceil(y - RADIUS)), 0), min(int(y + RADIUS) + 1, MAP)
            row = np.exp((np.arange(left, right) - x) ** 2 / (-2 * SIGMA**2))
            column = np.exp((np.arange(top, bottom) - y) ** 2 / (-2 * SIGMA**2))
            maps[n, k, top:bottom, left:right] = column[:, None] * row
            widened = maps[n, k].copy()
            np.maximum(widened[1:], maps[n, k, :-1], out=widened[1:])
            np.maximum(widened[:-1], maps[n, k, 1:], out=widened[:-1])
            tall = widened.copy()
            np.maximum(widened[:, 1:], tall[:, :-1], out=widened[:, 1:])
            np.maximum(widened[:, :-1], tall[:, 1:], out=widened[:, :-1])
            weights[n, k][widened > 0.2] = 10
    return torch.from_numpy(maps).to(landmarks.device), torch.from_numpy(weights).to(
        landmarks.device
    )


def plain(landmarks):
    """What a good engineer writes: outer products of Gaussians, max-pooled along each axis."""
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
    )
