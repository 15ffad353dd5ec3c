"""Adaptive wing loss of heat maps, against target maps or landmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from robustfer._checks import Variant, check_size
from robustfer.functional import adaptive_wing, landmark_adaptive_wing
from robustfer.functional._heatmap_axes import Bump
from robustfer.functional._precision import Reduction, check_reduction
from robustfer.functional.wing import WingCurve


class AdaptiveWingLoss(nn.Module):
    """Module form of :func:`robustfer.functional.adaptive_wing`.

    Args:
        alpha: exponent of the curve in the background, at least 2.
        omega: height of the curve.
        epsilon: distance over which it bends.
        theta: distance above which it is straight.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        heatmaps, heatmap_target, heatmap_weights ``(B, K, h, w)`` -> scalar, or ``(B)`` for
        ``"none"``.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV
        2019; Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression
        Recognition under Label Noise, ICCV 2023.

    >>> import torch
    >>> from robustfer.functional import render_heatmaps
    >>> landmarks = torch.tensor([[[20.0, 30.0], [40.0, 10.0]]])
    >>> target, weights = render_heatmaps(landmarks, image_size=56, heatmap_size=14)
    >>> AdaptiveWingLoss()(torch.zeros(1, 2, 14, 14), target, weights)
    tensor(4.8889)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            **WingCurve(alpha, omega, epsilon, theta).checked()._asdict(),
            "reduction": check_reduction(reduction),
        }

    def forward(
        self, heatmaps: Tensor, heatmap_target: Tensor, heatmap_weights: Tensor | None = None
    ) -> Tensor:
        return adaptive_wing(heatmaps, heatmap_target, heatmap_weights, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class LandmarkAdaptiveWingLoss(nn.Module):
    """Module form of :func:`robustfer.functional.landmark_adaptive_wing`.

    The data set gives landmarks only: it does not draw or move heat maps.

    Args:
        image_size: size of the image in pixels, (height, width) or one number for both.
        alpha: exponent of the curve in the background, at least 2.
        omega: height of the curve.
        epsilon: distance over which it bends.
        theta: distance above which it is straight.
        sigma: standard deviation of a landmark's bump in cells.
        truncate: half the side of its window in standard deviations.
        near_weight: weight of the cells near the landmark.
        far_weight: weight of all other cells.
        near_threshold: a cell is near if it or a neighbour is above this height of the bump.
        variant: ``"paper"`` or ``"official"``, see :func:`robustfer.functional.render_heatmaps`.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        heatmaps ``(B, K, h, w)``, landmarks ``(B, K, 2)`` in pixels, visible ``(B, K)`` bool
        -> scalar, or ``(B)`` for ``"none"``.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023; Wang et al., Adaptive Wing Loss for Robust Face Alignment
        via Heatmap Regression, ICCV 2019.

    >>> import torch
    >>> landmarks = torch.tensor([[[20.0, 30.0], [40.0, 10.0]]])
    >>> LandmarkAdaptiveWingLoss(image_size=56)(torch.zeros(1, 2, 14, 14), landmarks)
    tensor(4.8889)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        bump = Bump(sigma, truncate, near_weight, far_weight, near_threshold, variant)
        self.options: dict[str, Any] = {
            "image_size": check_size("image_size", image_size),
            **WingCurve(alpha, omega, epsilon, theta).checked()._asdict(),
            **bump.checked()._asdict(),
            "reduction": check_reduction(reduction),
        }

    def forward(self, heatmaps: Tensor, landmarks: Tensor, visible: Tensor | None = None) -> Tensor:
        return landmark_adaptive_wing(heatmaps, landmarks, visible, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())
