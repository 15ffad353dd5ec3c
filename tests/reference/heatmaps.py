"""Heat maps cell by cell: from the equation, and as the golden tensors' notes tell them."""

import math

import torch


def equation(landmarks, seen, image_size, heatmap_size, *, sigma, truncate, near, far, threshold):
    """``landmarks`` (B, K, 2), ``seen`` (B, K); sizes are (height, width)."""
    (image_height, image_width), (height, width) = image_size, heatmap_size
    batch, points, _ = landmarks.shape
    maps = torch.zeros(batch, points, height, width, dtype=torch.float64)
    weights = torch.zeros_like(maps)
    for n in range(batch):
        for k in range(points):
            if not seen[n, k]:
                continue
            x = (landmarks[n, k, 0].item() + 0.5) / image_width * width - 0.5
            y = (landmarks[n, k, 1].item() + 0.5) / image_height * height - 0.5
            for i in range(height):
                for j in range(width):
                    if max(abs(i - y), abs(j - x)) <= truncate * sigma:
                        square = (i - y) ** 2 + (j - x) ** 2
                        maps[n, k, i, j] = math.exp(-square / (2 * sigma**2))
            weights[n, k] = weigh(maps[n, k], near, far, threshold)
    return maps, weights


def pasted(landmark, image_size, size, *, sigma=1.5):
    """One map of the public program: a patch is cut at the frame and pasted, int() as it says."""
    centre = [int(value * size / image_size + 0.5) for value in landmark]
    start = [int(value - 3 * sigma) for value in centre]
    end = [int(value + 3 * sigma + 1) for value in centre]
    side = math.ceil(6 * sigma + 1)
    peak = (6 * sigma + 1) // 2
    heatmap = torch.zeros(size, size, dtype=torch.float64)
    for i in range(max(start[1], 0), min(end[1], size)):
        for j in range(max(start[0], 0), min(end[0], size)):
            row, column = i - start[1], j - start[0]
            if row < side and column < side:
                square = (row - peak) ** 2 + (column - peak) ** 2
                heatmap[i, j] = math.exp(-square / (2 * sigma**2))
    return heatmap


def weigh(heatmap, near=10.0, far=1.0, threshold=0.2):
    """10 where a cell or one of its eight neighbours is above the threshold, else 1."""
    height, width = heatmap.shape
    weights = torch.full((height, width), far, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            around = heatmap[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            if around.max() > threshold:
                weights[i, j] = near
    return weights
