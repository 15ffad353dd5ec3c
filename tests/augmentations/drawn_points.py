"""Points drawn into images, to see where an augmentation puts them."""

import torch

from robustfer.landmarks import landmark_layout

SWAP_5 = landmark_layout(5).swap
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
QUIET = {**PLAIN, "erase_probability": 0.0}
SIGMA = 1.5
# Half the side of a drawn point, beyond which a border does not cut it.
REACH = 4 * SIGMA


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scattered(batch, points, height, width, *, margin=0.1, seed=0, dtype=torch.float32):
    size = torch.tensor([width - 1.0, height - 1.0], dtype=dtype)
    random = torch.rand(batch, points, 2, generator=seeded(seed), dtype=dtype)
    return (margin + (1 - 2 * margin) * random) * size


def drawn(landmarks, height, width, channels=3):
    """An image a landmark (B * K, C, H, W), with a bright bump at the landmark."""
    x, y = landmarks.flatten(0, 1)[..., None, None].unbind(1)
    squared = (torch.arange(width) - x) ** 2 + (torch.arange(height)[:, None] - y) ** 2
    return torch.exp(squared / (-2 * SIGMA**2))[:, None].expand(-1, channels, -1, -1)


def found(images):
    """Where the bump of each image is (B, 1, 2): its centre of gravity."""
    bumps = images.double().sum(1)
    total = bumps.sum((1, 2))
    x = (bumps.sum(1) * torch.arange(bumps.shape[2])).sum(1) / total
    y = (bumps.sum(2) * torch.arange(bumps.shape[1])).sum(1) / total
    return torch.stack((x, y), -1)[:, None]


def compare(result, *, at_least, within=0.1, scale=1.0):
    """The landmarks of a LandmarkView of drawn points, against the points found in its images."""
    height, width = result.view.shape[-2:]
    reach = REACH * max(scale, 1.0)
    x, y = result.landmarks[:, 0].unbind(-1)
    whole = (x > reach) & (x < width - 1 - reach) & (y > reach) & (y < height - 1 - reach)
    assert whole.sum() >= at_least
    assert result.visible[whole].all()
    error = (found(result.view) - result.landmarks)[whole].norm(dim=-1).max()
    assert error < within, f"{error:.3f} px off"
    # What is not in the image is not visible, and the other way round.
    gone = result.view.amax((1, 2, 3)) < 0.05
    assert not result.visible[gone].any()
