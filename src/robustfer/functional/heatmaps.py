"""Heat maps of landmarks, the targets of a landmark branch (LA-Net)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import check_floating, check_range, check_shapes
from robustfer.functional._precision import full_precision

# Below it float32 exponentials become subnormal, and 15 times slower; the window is far narrower.
_LEAST_EXPONENT = -80.0


class Heatmaps(NamedTuple):
    """Targets of a landmark branch, and what each of their cells weighs in its loss."""

    heatmaps: Tensor
    weights: Tensor


def render_heatmaps(
    landmarks: Tensor,
    *,
    image_size: int | tuple[int, int],
    heatmap_size: int | tuple[int, int],
    visible: Tensor | None = None,
    sigma: float = 1.5,
    truncate: float = 3.0,
    near_weight: float = 10.0,
    far_weight: float = 1.0,
    near_threshold: float = 0.2,
    variant: Literal["paper", "official"] = "paper",
) -> Heatmaps:
    r"""Draw each landmark as a Gaussian bump on a map of its own, with a weight for each cell.

    .. math::
        H_{n,k,i,j} = e^{-\frac{(i - y_{n,k})^2 + (j - x_{n,k})^2}{2 \sigma^2}}, \qquad
        W_{n,k,i,j} = \begin{cases}
            \text{near} & \max_{|i'-i| \le 1, |j'-j| \le 1} H_{n,k,i',j'} > \text{threshold} \\
            \text{far} & \text{else}
        \end{cases}

    with :math:`x, y` the landmark in cells of the map, and :math:`H = 0` outside the square window
    of :math:`\pm\,\text{truncate} \cdot \sigma` cells about it. The middle of a pixel, and of a
    cell, is a whole number: pixel 0 covers -0.5 to 0.5, so that :math:`x = (x_\text{image} + 0.5)
    \cdot w / w_\text{image} - 0.5`. The bump stands exactly there, between the cells too, and
    gradients reach ``landmarks`` through ``heatmaps`` (not through ``weights``).

    A landmark that is not ``visible``, is not finite (not found by its detector) or lies outside
    the image has a map of zeros with weight zero: it asks nothing of the network.

    ``variant="official"`` does what the public program does. It rounds a landmark to a cell,
    :math:`c = \mathrm{trunc}(x_\text{image} \cdot w / w_\text{image} + 0.5)`, and cuts the
    window from :math:`\mathrm{trunc}(c - 3\sigma)` on, toward zero, which moves the bump by one
    cell for :math:`c \le 4`. No gradient reaches the landmarks; one that is hidden, not finite
    or far outside has a map of zeros whose cells still weigh ``far_weight``.

    Args:
        landmarks: points (x, y) in pixels of the image.
        image_size: size of the image in pixels, (height, width) or one number for both.
        heatmap_size: size of a map in cells, (height, width) or one number for both.
        visible: False for points that are not to be learnt; ``None``: all may be.
        sigma: standard deviation of the bump in cells.
        truncate: half the side of the window in standard deviations.
        near_weight: weight of the cells at the landmark.
        far_weight: weight of all other cells.
        near_threshold: height of the bump, widened by one cell, above which a cell is near.
        variant: ``"paper"`` or ``"official"``, see above.

    Returns:
        ``heatmaps`` from 0 to 1, and ``weights``.

    Shape:
        landmarks ``(B, K, 2)``, visible ``(B, K)`` -> both ``(B, K, h, w)``; float32 for half
        inputs. Half precision holds coordinates beyond 256 no finer than a quarter of a pixel
        (float16) or two pixels (bfloat16): keep landmarks in float32.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or an option is out of range.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023; Wang et al., Adaptive Wing Loss for Robust Face Alignment
        via Heatmap Regression, ICCV 2019 (the weights).

    >>> landmarks = torch.tensor([[[9.5, 5.5]]])  # pixels of an image of 16 x 16
    >>> maps, weights = render_heatmaps(landmarks, image_size=16, heatmap_size=4, sigma=0.5)
    >>> maps[0, 0]  # x = 2, y = 1
    tensor([[0.0000, 0.0183, 0.1353, 0.0183],
            [0.0000, 0.1353, 1.0000, 0.1353],
            [0.0000, 0.0183, 0.1353, 0.0183],
            [0.0000, 0.0000, 0.0000, 0.0000]])
    >>> weights[0, 0]
    tensor([[ 1., 10., 10., 10.],
            [ 1., 10., 10., 10.],
            [ 1., 10., 10., 10.],
            [ 1.,  1.,  1.,  1.]])
    """
    shaped = {"landmarks": (landmarks, "B K 2")}
    if visible is not None:
        shaped["visible"] = (visible, "B K")
    check_shapes(**shaped)
    check_floating(landmarks=landmarks)
    if visible is not None and visible.dtype != torch.bool:
        raise ValueError(f"visible must be bool, got {visible.dtype}")
    image_height, image_width = _height_width("image_size", image_size)
    height, width = _height_width("heatmap_size", heatmap_size)
    check_range("sigma", sigma, 0.0, open_low=True)
    check_range("truncate", truncate, 0.0, open_low=True)
    check_range("near_weight", near_weight, 0.0)
    check_range("far_weight", far_weight, 0.0)
    check_range("near_threshold", near_threshold, 0.0, 1.0, open_low=True, open_high=True)
    if variant not in ("paper", "official"):
        raise ValueError(f"variant must be 'paper' or 'official', got {variant!r}")

    x, y = full_precision(landmarks).unbind(dim=-1)
    shown = torch.isfinite(x) & torch.isfinite(y)
    if visible is not None:
        shown = shown & visible
    # A NaN behind torch.where would come back in the gradient.
    x, y = torch.where(shown, x, 0.0), torch.where(shown, y, 0.0)
    weighed = torch.ones_like(shown)
    if variant == "paper":
        shown = shown & _within(x, image_width) & _within(y, image_height)
        weighed = shown
    along_x = _profile(x, width, image_width, shown, sigma, truncate * sigma, variant)
    along_y = _profile(y, height, image_height, shown, sigma, truncate * sigma, variant)
    heatmaps = along_y[..., :, None] * along_x[..., None, :]

    with torch.no_grad():
        weights = torch.empty_like(heatmaps)
        # The greatest product of a 3 x 3 square is the product of the greatest factors, so the
        # maps are widened axis by axis, and compared without being multiplied out once more.
        reach_x, least_x = _widened(along_x), near_threshold / _widened(along_y)
        far = far_weight * weighed.to(weights.dtype)
        samples = _samples_at_once(weights)
        chunks = (torch.split(each, samples) for each in (weights, reach_x, least_x, far))
        for part, reach, least, base in zip(*chunks, strict=True):
            torch.gt(reach[..., None, :], least[..., :, None], out=part)
            torch.add(base[..., None, None], part, alpha=near_weight - far_weight, out=part)
    return Heatmaps(heatmaps, weights)


def _profile(
    position: Tensor,
    cells: int,
    pixels: int,
    shown: Tensor,
    sigma: float,
    radius: float,
    variant: str,
) -> Tensor:
    """One axis of the bumps (B, K, cells); the map is the product of its two axes."""
    scale = cells / pixels
    if variant == "paper":
        peak = (position + 0.5) * scale - 0.5
        first, last = peak - radius, peak + radius
    else:
        rounded = torch.trunc(position * scale + 0.5)
        first = torch.trunc(rounded - radius)
        last = torch.trunc(rounded + radius + 1) - 1
        peak = first + math.floor(radius + 0.5)
    first = torch.where(shown, first, math.inf)  # an empty window
    cell = torch.arange(cells, device=position.device, dtype=position.dtype)
    window = (cell >= first[..., None]) & (cell <= last[..., None])
    exponent = (cell - peak[..., None]).square() * (-0.5 / sigma**2)
    return exponent.clamp(min=_LEAST_EXPONENT).exp() * window


def _samples_at_once(maps: Tensor) -> int:
    """As many samples as stay in the cache between two passes; all in a compiled graph."""
    if torch.compiler.is_compiling():
        return len(maps)
    budget = 2 * 2**20 if maps.device.type == "cpu" else 256 * 2**20
    return max(1, budget // (maps[0].numel() * maps.element_size()))


def _widened(profile: Tensor) -> Tensor:
    return F.max_pool1d(profile, kernel_size=3, stride=1, padding=1)


def _within(position: Tensor, pixels: int) -> Tensor:
    return (position >= -0.5) & (position <= pixels - 0.5)


def _height_width(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise ValueError(f"{name} must be a positive whole number or (height, width), got {size}")
    return pair
