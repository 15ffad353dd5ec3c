"""Adaptive wing loss of heat maps, against target maps or landmarks (LA-Net).

:class:`WingCurve` holds the mathematics. ``_wing_passes`` runs it over a few samples at a time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robustfer._checks import (
    Variant,
    check_finite,
    check_floating,
    check_range,
    check_shapes,
    check_within,
    values_are_checked,
)
from robustfer.functional._heatmap_axes import Bump, landmark_profiles
from robustfer.functional._precision import Reduction, check_reduction, reduce
from robustfer.functional._wing_passes import against_landmarks, against_maps, with_known_slope


class WingCurve(NamedTuple):
    """The adaptive wing's options; computes value and slope in one pass without a branch."""

    alpha: float
    omega: float
    epsilon: float
    theta: float

    def checked(self) -> WingCurve:
        """Return the curve, or raise if an option is out of range."""
        check_range("alpha", self.alpha, 2.0)
        for name in ("omega", "epsilon", "theta"):
            check_range(name, getattr(self, name), 0.0, open_low=True)
        return self

    def value_and_slope(
        self, difference: Tensor, target: Tensor | float, weight: Tensor | None, out: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        r"""Return weighted value and slope at ``p - y``, both divided by :math:`\omega`.

        With :math:`a = \alpha - y`, :math:`t = \min(d, \theta)` and :math:`u = (t / \epsilon)^a`
        the slope is :math:`s = a u / (t + t u)` in both branches, and the value
        :math:`\ln(1 + u) + s (d - t)`. The slope is written to ``out`` if it is given.
        """
        exponent = self.alpha - target
        # The logarithm of zero is infinite. This least distance keeps u a normal number.
        least = torch.finfo(difference.dtype).tiny ** (1 / (self.alpha + 1))
        distance = difference.abs().clamp_(min=least)
        bent = distance.clamp(max=self.theta)
        power = bent.log()
        if self.epsilon != 1:
            power.sub_(math.log(self.epsilon))
        power.mul_(exponent).exp_()
        slope = torch.addcmul(bent, bent, power)
        torch.div(power, slope, out=slope)
        slope.mul_(exponent)
        value = _log1p_(power).addcmul_(slope, distance.sub_(bent))
        if weight is not None:
            value.mul_(weight)
            slope.mul_(weight)
        # The sign of zero is zero: there is no slope where the prediction is right.
        sign = torch.sign(difference, out=distance)
        return value, torch.mul(slope, sign, out=slope if out is None else out)


def _log1p_(values: Tensor) -> Tensor:
    r"""Replace x by :math:`\ln(1 + x)`. On the CPU torch's own is not vectorised."""
    if not values.is_cpu:
        return values.log1p_()
    above = values + 1
    # What the sum has rounded away.
    lost = values.sub_(above - 1)
    return lost.div_(above).add_(above.log())


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
    r"""Return a loss of heat maps that is sharp at landmarks and soft in the background.

    .. math::
        \ell_n = \frac{1}{Khw} \sum_{k,i,j} w_{nkij}\, \mathrm{AWing}(y_{nkij}, p_{nkij})

    .. math::
        \mathrm{AWing}(y, p) = \begin{cases}
            \omega \ln\bigl(1 + (d / \epsilon)^{\alpha - y}\bigr) & d < \theta \\
            A\,d - C & \text{else}
        \end{cases}

    with :math:`d = |y - p|`, and :math:`A, C` that make value and slope continuous:

    .. math::
        A = \frac{\omega\,(\alpha - y)\,(\theta / \epsilon)^{\alpha - y}}
            {\theta\,\bigl(1 + (\theta / \epsilon)^{\alpha - y}\bigr)}, \qquad
        C = \theta A - \omega \ln\bigl(1 + (\theta / \epsilon)^{\alpha - y}\bigr)

    The sum is divided by the number of cells, not by the sum of the weights. Only ``heatmaps``
    receive a gradient. A second derivative raises an error.

    Args:
        heatmaps: predictions :math:`p`, any real numbers (no activation is applied).
        heatmap_target: targets :math:`y` in [0, 1]; constants.
        heatmap_weights: :math:`w`, of any real dtype (``uint8`` saves memory); constants.
            ``None``: all one.
        alpha: :math:`\alpha \ge 2`; the exponent is ``alpha`` in the background and
            ``alpha - 1`` at a peak. Above 2 the curve is smooth there too.
        omega: :math:`\omega`, the height of the curve.
        epsilon: :math:`\epsilon`, the distance over which it bends.
        theta: :math:`\theta`, the distance above which it is straight.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        all ``(B, K, h, w)`` -> scalar, or ``(B)``; float32 for half inputs.

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
        "heatmaps": (heatmaps, "B K h w"),
        "heatmap_target": (heatmap_target, "B K h w"),
    }
    if heatmap_weights is not None:
        shaped["heatmap_weights"] = (heatmap_weights, "B K h w")
    check_shapes(**shaped)
    check_floating(heatmaps=heatmaps, heatmap_target=heatmap_target)
    curve = WingCurve(alpha, omega, epsilon, theta).checked()
    check_reduction(reduction)
    if values_are_checked():
        check_within(0, 1, heatmap_target=heatmap_target)
        if heatmap_weights is not None:
            check_finite(heatmap_weights=heatmap_weights)
            check_within(0, math.inf, heatmap_weights=heatmap_weights)
    with torch.no_grad():
        total, slope = against_maps(
            heatmaps, heatmap_target, heatmap_weights, curve.value_and_slope
        )
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
    r"""Return the adaptive wing loss against landmarks, without drawing their heat maps.

    It equals :func:`adaptive_wing` against the maps and weights that
    :func:`robustfer.functional.render_heatmaps` draws from the landmarks with the same options. It
    draws targets and weights only in the small window of each bump. Elsewhere the target is zero
    and the weight is ``far_weight``.

    Args:
        heatmaps: predictions, any real numbers.
        landmarks: points (x, y) in pixels of the image; constants.
        visible: False for points not to learn; ``None``: all are visible.
        image_size: size of the image in pixels, (height, width) or one number for both.
        alpha: exponent of the curve in the background, see :func:`adaptive_wing`.
        omega: the height of the curve.
        epsilon: the distance over which it bends.
        theta: the distance above which it is straight.
        sigma: standard deviation of the bump in cells.
        truncate: half the side of its window in standard deviations.
        near_weight: weight of the cells near the landmark.
        far_weight: weight of all other cells.
        near_threshold: a cell is near if it or a neighbour is above this height of the bump.
        variant: ``"paper"`` or ``"official"``, see :func:`robustfer.functional.render_heatmaps`.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        heatmaps ``(B, K, h, w)``, landmarks ``(B, K, 2)``, visible ``(B, K)`` bool -> scalar, or
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
    check_shapes(heatmaps=(heatmaps, "B K h w"), landmarks=(landmarks, "B K 2"))
    check_floating(heatmaps=heatmaps)
    curve = WingCurve(alpha, omega, epsilon, theta).checked()
    check_reduction(reduction)
    size = heatmaps.shape[2], heatmaps.shape[3]
    bump = Bump(sigma, truncate, near_weight, far_weight, near_threshold, variant)
    with torch.no_grad():
        profiles = landmark_profiles(
            landmarks, visible, bump, image_size=image_size, heatmap_size=size
        )
        # The bump and one cell around it; the authors' code may draw it one cell longer.
        side = math.floor(2 * truncate * sigma) + (3 if variant == "paper" else 4)
        total, slope = against_landmarks(
            heatmaps, profiles, side, near_weight - far_weight, curve.value_and_slope
        )
    return _reduced(heatmaps, total, slope, curve, reduction)


def _reduced(
    heatmaps: Tensor, total: Tensor, slope: Tensor, curve: WingCurve, reduction: Reduction
) -> Tensor:
    per_sample = with_known_slope(heatmaps, total, slope)
    return reduce(per_sample * (curve.omega / slope[0].numel()), reduction)
