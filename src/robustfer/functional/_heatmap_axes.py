"""A landmark's Gaussian bump as the product of two axes. Heat maps and losses use the axes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import (
    Variant,
    check_floating_dtype,
    check_mask,
    check_range,
    check_shapes,
    check_size,
    check_variant,
    values_are_checked,
    warn_if_normalized,
)
from robustfer.functional._budget import byte_budget
from robustfer.functional._precision import full_precision
from robustfer.landmarks.geometry import inside, resize_coordinate

# Below it float32 exponentials are subnormal and slow. The window cuts such cells off anyway.
_LEAST_EXPONENT = -80.0


class Bump(NamedTuple):
    """The options that :func:`render_heatmaps` explains."""

    sigma: float
    truncate: float
    near_weight: float
    far_weight: float
    near_threshold: float
    variant: Variant

    def checked(self) -> Bump:
        """Return the options, or raise if one is out of range."""
        check_range("sigma", self.sigma, 0.0, open_low=True)
        check_range("truncate", self.truncate, 0.0, open_low=True)
        check_range("near_weight", self.near_weight, 0.0)
        check_range("far_weight", self.far_weight, 0.0)
        check_range("near_threshold", self.near_threshold, 0, 1, open_low=True, open_high=True)
        check_variant(self.variant)
        return self


class Profiles(NamedTuple):
    """The axes of a batch of heat maps and of their weights.

    The maps are ``along_y[..., :, None] * along_x[..., None, :]``. A cell is near its landmark
    where ``reach_x[..., None, :] > least_x[..., :, None]``.

    Attributes:
        along_y: (B, K, h) column of each map; zeros for a landmark that is not used.
        along_x: (B, K, w) row of each map.
        reach_x: (B, K, w) the row, widened by one cell to either side.
        least_x: (B, K, h) threshold of ``reach_x`` in each row.
        far: (B, K) weight of the cells that are not near; zero for a landmark that is not used.
    """

    along_y: Tensor
    along_x: Tensor
    reach_x: Tensor
    least_x: Tensor
    far: Tensor


def landmark_profiles(
    landmarks: Tensor,
    visible: Tensor | None,
    bump: Bump,
    *,
    image_size: int | tuple[int, int],
    heatmap_size: tuple[int, int],
) -> Profiles:
    """Check the arguments of :func:`render_heatmaps` and return the axes of its maps."""
    shaped = {"landmarks": (landmarks, "B K 2")}
    if visible is not None:
        shaped["visible"] = (visible, "B K")
    check_shapes(**shaped)
    check_mask(**({} if visible is None else {"visible": visible}))
    check_floating_dtype(landmarks=landmarks)
    image_height, image_width = check_size("image_size", image_size)
    # Every training step comes here, so this check is opt-in on CPUs too.
    if values_are_checked():
        warn_if_normalized(landmarks, side=min(image_height, image_width))
    height, width = heatmap_size
    bump.checked()

    x, y = full_precision(landmarks).unbind(dim=-1)
    shown = torch.isfinite(x) & torch.isfinite(y)
    if visible is not None:
        shown = shown & visible
    # Replace NaN before it is used: masked out afterwards, it would still reach the gradient.
    x, y = torch.where(shown, x, 0.0), torch.where(shown, y, 0.0)
    weighed = torch.ones_like(shown)
    if bump.variant == "paper":
        shown = shown & inside(x, image_width) & inside(y, image_height)
        weighed = shown
    along_x = _profile(x, width, image_width, shown, bump)
    along_y = _profile(y, height, image_height, shown, bump)
    with torch.no_grad():
        # The greatest product in a 3 x 3 square is the product of the greatest factors. So each
        # axis is widened by itself, and the comparison needs no product.
        reach_x, least_x = _widened(along_x), bump.near_threshold / _widened(along_y)
        far = bump.far_weight * weighed.to(along_x.dtype)
    return Profiles(along_y, along_x, reach_x, least_x, far)


def in_chunks(maps: Tensor, *others: Tensor, copies: int = 1) -> Iterator[tuple[Tensor, ...]]:
    """Split tensors into chunks of samples. ``copies`` of a chunk of maps fit the byte budget.

    When compiling, the whole batch is one chunk.
    """
    samples = len(maps)
    if not torch.compiler.is_compiling():
        size = copies * maps[0].numel() * maps.element_size()
        samples = max(1, byte_budget(maps.device.type) // size)
    return zip(*(torch.split(each, samples) for each in (maps, *others)), strict=True)


def _profile(position: Tensor, cells: int, pixels: int, shown: Tensor, bump: Bump) -> Tensor:
    """Return one axis of the bumps, ``(B, K, cells)``."""
    radius = bump.truncate * bump.sigma
    if bump.variant == "paper":
        peak = resize_coordinate(position, pixels, cells)
        first, last = peak - radius, peak + radius
    else:
        rounded = torch.trunc(position * (cells / pixels) + 0.5)
        first = torch.trunc(rounded - radius)
        last = torch.trunc(rounded + radius + 1) - 1
        peak = first + math.floor(radius + 0.5)
    first = torch.where(shown, first, math.inf)  # an empty window
    cell = torch.arange(cells, device=position.device, dtype=position.dtype)
    window = (cell >= first[..., None]) & (cell <= last[..., None])
    exponent = (cell - peak[..., None]).square() * (-0.5 / bump.sigma**2)
    return exponent.clamp(min=_LEAST_EXPONENT).exp() * window


def _widened(profile: Tensor) -> Tensor:
    return F.max_pool1d(profile, kernel_size=3, stride=1, padding=1)
