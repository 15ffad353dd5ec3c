"""Run the adaptive wing's curve over heat maps, a few samples at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from robustfer.functional._heatmap_axes import Profiles, in_chunks
from robustfer.functional._known_gradient import check_first, only_once

# Takes a difference, its target, weights and an output for the slope. Returns weighted value
# and slope.
Curve: TypeAlias = Callable[
    [Tensor, Tensor | float, Tensor | None, Tensor | None], tuple[Tensor, Tensor]
]

# Maps of one chunk that are in use at once: inputs, outputs and temporaries.
_COPIES = 8


def against_maps(
    heatmaps: Tensor, target: Tensor, weights: Tensor | None, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Return the sum over the cells ``(B)`` and the slope in each cell, both divided by omega."""
    total, slope = _results(heatmaps)
    given = (heatmaps, target) if weights is None else (heatmaps, target, weights)
    chunks = in_chunks(slope, total, *given, copies=_COPIES)
    for slope_part, total_part, prediction, truth, *weight in chunks:
        prediction, truth = prediction.to(slope.dtype), truth.to(slope.dtype)
        difference = prediction - truth
        value, _ = curve(difference, truth, weight[0] if weight else None, slope_part)
        torch.sum(value.flatten(1), dim=1, out=total_part)
    return total, slope


def against_landmarks(
    heatmaps: Tensor, profiles: Profiles, side: int, more_near: float, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Do what :func:`against_maps` does, for the maps of landmarks.

    Bumps fit into windows of ``side`` cells. Cells near a landmark weigh ``more_near`` more than
    the others.
    """
    height, width = heatmaps.shape[2:]
    # Gathering the windows pays only where the map is several times larger than a window.
    if 5 * min(side, height) * min(side, width) > height * width:
        return _against_drawn(heatmaps, profiles, more_near, curve)
    return _against_windows(heatmaps, profiles, side, more_near, curve)


def _against_drawn(
    heatmaps: Tensor, profiles: Profiles, more_near: float, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Do what :func:`against_maps` does, and draw maps and weights chunk by chunk."""
    total, slope = _results(heatmaps)
    axes = (each.to(slope.dtype) for each in profiles)
    chunks = in_chunks(slope, total, heatmaps, *axes, copies=_COPIES)
    for slope_part, total_part, prediction, along_y, along_x, reach_x, least_x, far in chunks:
        truth = along_y[..., :, None] * along_x[..., None, :]
        near = reach_x[..., None, :] > least_x[..., :, None]
        weight = torch.add(far[..., None, None], near, alpha=more_near)
        value, _ = curve(prediction.to(slope.dtype) - truth, truth, weight, slope_part)
        torch.sum(value.flatten(1), dim=1, out=total_part)
    return total, slope


def _against_windows(
    heatmaps: Tensor, profiles: Profiles, side: int, more_near: float, curve: Curve
) -> tuple[Tensor, Tensor]:
    """Do what :func:`against_maps` does, and draw maps and weights only inside the windows."""
    total, slope = _results(heatmaps)
    _, points, height, width = heatmaps.shape
    along_y, along_x, reach_x, least_x, far = (each.to(slope.dtype) for each in profiles)
    row = _window(torch.isfinite(least_x), min(side, height))
    column = _window(reach_x > 0, min(side, width))
    truth = along_y.gather(2, row)[..., :, None] * along_x.gather(2, column)[..., None, :]
    near = reach_x.gather(2, column)[..., None, :] > least_x.gather(2, row)[..., :, None]
    weight = torch.add(far[..., None, None], near, alpha=more_near)
    # Positions of the windows' cells in a flattened sample.
    top = height * torch.arange(points, device=row.device)[:, None] + row
    cells = (width * top[..., :, None] + column[..., None, :]).flatten(1)
    prediction = heatmaps.detach().flatten(1).gather(1, cells).to(slope.dtype).view_as(truth)
    value_near, slope_near = curve(prediction - truth, truth, weight, None)

    windows = cells, value_near.flatten(1), slope_near.flatten(1)
    chunks = in_chunks(slope, total, heatmaps, far, *windows, copies=_COPIES)
    for slope_part, total_part, prediction, base, where, inner, inner_slope in chunks:
        value, _ = curve(prediction.to(slope.dtype), 0.0, base[..., None, None], slope_part)
        torch.sum(value.flatten(1).scatter_(1, where, inner), dim=1, out=total_part)
        slope_part.view(len(where), -1).scatter_(1, where, inner_slope)
    return total, slope


def _results(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate the sum of each sample and the slope in each cell."""
    dtype = torch.promote_types(heatmaps.dtype, torch.float32)
    slope = torch.empty(heatmaps.shape, dtype=dtype, device=heatmaps.device)
    return slope.new_empty(len(heatmaps)), slope


def _window(inside: Tensor, side: int) -> Tensor:
    """Return ``side`` consecutive cells, ``(B, K, side)``, that hold all marked ones."""
    start = inside.to(torch.uint8).argmax(dim=2).clamp(max=inside.shape[2] - side)
    return start[..., None] + torch.arange(side, device=inside.device)


def with_known_slope(heatmaps: Tensor, total: Tensor, slope: Tensor) -> Tensor:
    """Return ``total``, ``(B)``, with ``slope`` as its gradient by the heat maps."""
    attached: Tensor = _KnownSlope.apply(heatmaps, total, slope)[0]
    return attached


class _KnownSlope(torch.autograd.Function):
    # The slope is an output too, because only a second derivative has a gradient for it.

    @staticmethod
    def forward(heatmaps: Tensor, total: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        return total.clone(), slope.view_as(slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])
        ctx.dtype = inputs[0].dtype
        only_once(ctx)

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor | None, second: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        check_first("the adaptive wing loss", second)
        if gradient is None:
            return None, None, None
        (slope,) = ctx.saved_tensors
        return (slope * gradient[:, None, None, None]).to(ctx.dtype), None, None
