"""Adaptive wing loss of heat maps, against maps or straight from landmarks (LA-Net)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from robustfer._checks import (
    Variant,
    check_finite,
    check_floating,
    check_shapes,
    values_are_checked,
)
from robustfer.functional._precision import Reduction, check_reduction, reduce
from robustfer.functional._profiles import Profiles, landmark_profiles, samples_at_once
from robustfer.functional._wing_curve import WingCurve, check_wing_options

# Maps of one chunk that are in use together: what is read, what is written, what is between.
_COPIES = 8


def adaptive_wing(
    heatmaps: Tensor,
    heatmap_target: Tensor,
    heatmap_weights: Tensor | None = None,
    *,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Loss of predicted heat maps that is sharp at a landmark and soft in the background.

    .. math::
        \ell_n = \frac{1}{KHW} \sum_{k,i,j} w_{nkij}\, \mathrm{AWing}(y_{nkij}, p_{nkij}),
        \qquad
        \mathrm{AWing}(y, p) = \begin{cases}
            \omega \ln\bigl(1 + (d / \epsilon)^{\alpha - y}\bigr) & d < \theta \\
            A\,d - C & \text{else}
        \end{cases}

    with :math:`d = |y - p|` and :math:`A, C` such that value and slope are continuous:

    .. math::
        A = \frac{\omega\,(\alpha - y)\,(\theta / \epsilon)^{\alpha - y}}
            {\theta\,\bigl(1 + (\theta / \epsilon)^{\alpha - y}\bigr)}, \qquad
        C = \theta A - \omega \ln\bigl(1 + (\theta / \epsilon)^{\alpha - y}\bigr)

    The sum is divided by the number of cells, not by that of their weights. Value and slope are
    made in one pass over the maps, a few samples at a time; the gradient reaches ``heatmaps``
    alone, and cannot be differentiated once more.

    Args:
        heatmaps: predictions :math:`p`, any real numbers (no activation is applied).
        heatmap_target: targets :math:`y` in [0, 1]; constants.
        heatmap_weights: :math:`w`, of any real dtype (``uint8`` spares memory); constants.
            ``None``: all one.
        alpha: :math:`\alpha \ge 2`; the exponent is ``alpha`` in the background and
            ``alpha - 1`` at a peak. Above 2 the curve is smooth there too.
        omega: :math:`\omega`, the height of the curve.
        epsilon: :math:`\epsilon`, the distance over which it bends.
        theta: :math:`\theta`, the distance from which on it is straight.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value a sample.

    Shape:
        all ``(B, K, H, W)`` -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or an option is out of range.

    Reference:
        Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV
        2019; Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression
        Recognition under Label Noise, ICCV 2023.

    >>> target = torch.tensor([[[[0.0, 1.0]]]])
    >>> adaptive_wing(target, target) < 1e-9
    tensor(True)
    >>> adaptive_wing(target + 0.1, target)
    tensor(0.5904)
    """
    shaped = {
        "heatmaps": (heatmaps, "B K H W"),
        "heatmap_target": (heatmap_target, "B K H W"),
    }
    if heatmap_weights is not None:
        shaped["heatmap_weights"] = (heatmap_weights, "B K H W")
    check_shapes(**shaped)
    check_floating(heatmaps=heatmaps, heatmap_target=heatmap_target)
    check_wing_options(alpha, omega, epsilon, theta)
    check_reduction(reduction)
    if values_are_checked():
        check_finite(**{name: tensor for name, (tensor, _) in shaped.items()})
    curve = WingCurve(alpha, omega, epsilon, theta)
    with torch.no_grad():
        total, slope = _against_maps(heatmaps, heatmap_target, heatmap_weights, curve)
    return _reduced(heatmaps, total, slope, curve, reduction)


def landmark_adaptive_wing(
    heatmaps: Tensor,
    landmarks: Tensor,
    visible: Tensor | None = None,
    *,
    image_size: int | tuple[int, int],
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    sigma: float = 1.5,
    truncate: float = 3.0,
    near_weight: float = 10.0,
    far_weight: float = 1.0,
    near_threshold: float = 0.2,
    variant: Variant = "paper",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Adaptive wing loss against the landmarks' own heat maps, which are never made.

    Equal to :func:`adaptive_wing` against the maps and weights that
    :func:`robustfer.functional.render_heatmaps` draws of the landmarks with the same options.
    Outside the small window of its bump the target is zero and the weight ``far_weight``, so
    that targets and weights are drawn for the windows alone.

    Args:
        heatmaps: predictions, any real numbers; their height and width are those of the targets.
        landmarks: points (x, y) in pixels of the image; constants.
        visible: False for points that are not to be learnt; ``None``: all may be.
        image_size: size of the image in pixels, (height, width) or one number for both.
        alpha: see :func:`adaptive_wing`, as ``omega``, ``epsilon`` and ``theta``.
        omega: the height of the curve.
        epsilon: the distance over which it bends.
        theta: the distance from which on it is straight.
        sigma: standard deviation of the bump in cells.
        truncate: half the side of its window in standard deviations.
        near_weight: weight of the cells at the landmark.
        far_weight: weight of all other cells.
        near_threshold: height of the bump, widened by one cell, above which a cell is near.
        variant: ``"paper"`` or ``"official"``, see :func:`robustfer.functional.render_heatmaps`.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value a sample.

    Shape:
        heatmaps ``(B, K, H, W)``, landmarks ``(B, K, 2)``, visible ``(B, K)`` bool -> scalar, or
        ``(B)``; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or an option is out of range.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023; Wang et al., Adaptive Wing Loss for Robust Face Alignment
        via Heatmap Regression, ICCV 2019.

    >>> from robustfer.functional import render_heatmaps
    >>> heatmaps, landmarks = torch.rand(2, 5, 14, 14), 56 * torch.rand(2, 5, 2)
    >>> drawn = render_heatmaps(landmarks, image_size=56, heatmap_size=14)
    >>> expected = adaptive_wing(heatmaps, *drawn)
    >>> torch.allclose(landmark_adaptive_wing(heatmaps, landmarks, image_size=56), expected)
    True
    """
    check_shapes(heatmaps=(heatmaps, "B K H W"), landmarks=(landmarks, "B K 2"))
    check_floating(heatmaps=heatmaps)
    check_wing_options(alpha, omega, epsilon, theta)
    check_reduction(reduction)
    if values_are_checked():
        check_finite(heatmaps=heatmaps)
    curve = WingCurve(alpha, omega, epsilon, theta)
    height, width = heatmaps.shape[2:]
    with torch.no_grad():
        profiles = landmark_profiles(
            landmarks,
            image_size=image_size,
            heatmap_size=(height, width),
            visible=visible,
            sigma=sigma,
            truncate=truncate,
            near_weight=near_weight,
            far_weight=far_weight,
            near_threshold=near_threshold,
            variant=variant,
        )
        # The bump and one cell about it; the public program's bump may be one cell longer.
        side = math.floor(2 * truncate * sigma) + (3 if variant == "paper" else 4)
        # Picking the windows out pays from five times their size on; maps of 28 cells are level.
        small = 5 * min(side, height) * min(side, width) > height * width
        more_near = near_weight - far_weight
        if small:
            total, slope = _against_drawn(heatmaps, profiles, more_near, curve)
        else:
            total, slope = _against_windows(heatmaps, profiles, side, more_near, curve)
    return _reduced(heatmaps, total, slope, curve, reduction)


def _against_maps(
    heatmaps: Tensor, target: Tensor, weights: Tensor | None, curve: WingCurve
) -> tuple[Tensor, Tensor]:
    """Sum over the cells (B), and slope in each cell, both over omega."""
    total, slope = _results(heatmaps)
    samples = samples_at_once(slope, copies=_COPIES)
    given = (heatmaps, target) if weights is None else (heatmaps, target, weights)
    chunks = (torch.split(each, samples) for each in (total, slope, *given))
    for total_part, slope_part, prediction, truth, *weight in zip(*chunks, strict=True):
        prediction, truth = prediction.to(slope.dtype), truth.to(slope.dtype)
        value, _ = curve.value_and_slope(
            prediction - truth, curve.alpha - truth, weight[0] if weight else None, slope_part
        )
        torch.sum(value.flatten(1), dim=1, out=total_part)
    return total, slope


def _against_drawn(
    heatmaps: Tensor, profiles: Profiles, more_near: float, curve: WingCurve
) -> tuple[Tensor, Tensor]:
    """As :func:`_against_maps`, the maps and weights of the landmarks drawn a chunk at a time."""
    total, slope = _results(heatmaps)
    samples = samples_at_once(slope, copies=_COPIES)
    given = (total, slope, heatmaps, *(each.to(slope.dtype) for each in profiles))
    chunks = (torch.split(each, samples) for each in given)
    for total_part, slope_part, prediction, along_y, along_x, reach_x, least_x, far in zip(
        *chunks, strict=True
    ):
        truth = along_y[..., :, None] * along_x[..., None, :]
        near = reach_x[..., None, :] > least_x[..., :, None]
        weight = torch.add(far[..., None, None], near, alpha=more_near)
        value, _ = curve.value_and_slope(
            prediction.to(slope.dtype) - truth, curve.alpha - truth, weight, slope_part
        )
        torch.sum(value.flatten(1), dim=1, out=total_part)
    return total, slope


def _against_windows(
    heatmaps: Tensor, profiles: Profiles, side: int, more_near: float, curve: WingCurve
) -> tuple[Tensor, Tensor]:
    """As :func:`_against_maps`, cells outside the landmarks' windows of that side being far."""
    total, slope = _results(heatmaps)
    _, points, height, width = heatmaps.shape
    along_y, along_x, reach_x, least_x, far = (each.to(slope.dtype) for each in profiles)
    row = _window(torch.isfinite(least_x), min(side, height))
    column = _window(reach_x > 0, min(side, width))
    truth = along_y.gather(2, row)[..., :, None] * along_x.gather(2, column)[..., None, :]
    near = reach_x.gather(2, column)[..., None, :] > least_x.gather(2, row)[..., :, None]
    weight = torch.add(far[..., None, None], near, alpha=more_near)
    # Where the windows' cells stand in a sample.
    top = height * torch.arange(points, device=row.device)[:, None] + row
    cells = (width * top[..., :, None] + column[..., None, :]).flatten(1)
    prediction = heatmaps.detach().flatten(1).gather(1, cells).to(slope.dtype).view_as(truth)
    value_near, slope_near = curve.value_and_slope(prediction - truth, curve.alpha - truth, weight)

    samples = samples_at_once(slope, copies=_COPIES)
    given = (total, slope, heatmaps, far, cells, value_near.flatten(1), slope_near.flatten(1))
    chunks = (torch.split(each, samples) for each in given)
    for total_part, slope_part, prediction, base, where, inner, inner_slope in zip(
        *chunks, strict=True
    ):
        value, _ = curve.value_and_slope(
            prediction.to(slope.dtype), curve.alpha, base[..., None, None], slope_part
        )
        torch.sum(value.flatten(1).scatter_(1, where, inner), dim=1, out=total_part)
        slope_part.view(len(where), -1).scatter_(1, where, inner_slope)
    return total, slope


def _results(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the sum of each sample and for the slope in each cell."""
    dtype = torch.promote_types(heatmaps.dtype, torch.float32)
    slope = torch.empty(heatmaps.shape, dtype=dtype, device=heatmaps.device)
    return slope.new_empty(len(heatmaps)), slope


def _window(inside: Tensor, side: int) -> Tensor:
    """Cells (B, K, side) in a row that hold all those marked in (B, K, cells)."""
    start = inside.to(torch.uint8).argmax(dim=2).clamp(max=inside.shape[2] - side)
    return start[..., None] + torch.arange(side, device=inside.device)


def _reduced(
    heatmaps: Tensor, total: Tensor, slope: Tensor, curve: WingCurve, reduction: Reduction
) -> Tensor:
    per_sample: Tensor = _KnownSlope.apply(heatmaps, total, slope)
    return reduce(per_sample * (curve.omega / slope[0].numel()), reduction)


class _KnownSlope(torch.autograd.Function):
    """Values whose gradient by the heat maps is known already."""

    @staticmethod
    def forward(heatmaps: Tensor, total: Tensor, slope: Tensor) -> Tensor:
        return total.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        heatmaps, _, slope = inputs
        ctx.save_for_backward(slope)
        ctx.dtype = heatmaps.dtype

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return (slope * gradients[0][:, None, None, None]).to(ctx.dtype), None, None
