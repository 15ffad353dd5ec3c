"""Heat maps of landmarks, the targets of a landmark branch (LA-Net)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustfer._checks import Variant, check_size
from robustfer.functional._heatmap_axes import Bump, in_chunks, landmark_profiles


class Heatmaps(NamedTuple):
    """Targets of a landmark branch, and the weight of each cell in its loss."""

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
    variant: Variant = "paper",
) -> Heatmaps:
    r"""Draw each landmark as a Gaussian bump on its own map, with a weight for each cell.

    .. math::
        H_{n,k,i,j} = e^{-\frac{(i - y_{n,k})^2 + (j - x_{n,k})^2}{2 \sigma^2}}, \qquad
        W_{n,k,i,j} = \begin{cases}
            \text{near} & \max_{|i'-i| \le 1, |j'-j| \le 1} H_{n,k,i',j'} > \text{threshold} \\
            \text{far} & \text{else}
        \end{cases}

    with :math:`x, y` the landmark in cells of the map, and :math:`H = 0` outside the square window
    of :math:`\pm\,\text{truncate} \cdot \sigma` cells around it. The centres of pixels and cells
    are whole numbers: pixel 0 covers -0.5 to 0.5. Hence :math:`x = (x_\text{image} + 0.5) \cdot w /
    w_\text{image} - 0.5`. A bump may lie between cells. Gradients reach ``landmarks`` through
    ``heatmaps``, not through ``weights``.

    The network learns nothing from a landmark that is not ``visible``, not finite (its detector did
    not find it) or outside the image. Its map and its weights are zero.

    ``variant="official"`` follows the authors' code. It rounds a landmark to a cell,
    :math:`c = \mathrm{trunc}(x_\text{image} \cdot w / w_\text{image} + 0.5)`. The window starts at
    :math:`\mathrm{trunc}(c - 3\sigma)`, which moves the bump by one cell for :math:`c \le 4`. No
    gradient reaches the landmarks. A landmark that is hidden, not finite or far outside has a map
    of zeros, but its cells still weigh ``far_weight``.

    Args:
        landmarks: points (x, y) in pixels of the image.
        image_size: size of the image in pixels, (height, width) or one number for both.
        heatmap_size: size of a map in cells, (height, width) or one number for both.
        visible: False for points not to learn; ``None``: all are visible.
        sigma: standard deviation of the bump in cells.
        truncate: half the side of the window in standard deviations.
        near_weight: weight of the cells near the landmark.
        far_weight: weight of all other cells.
        near_threshold: a cell is near if it or a neighbour is above this height of the bump.
        variant: ``"paper"`` or ``"official"``, see above.

    Returns:
        ``heatmaps`` from 0 to 1, and ``weights``.

    Shape:
        landmarks ``(B, K, 2)``, visible ``(B, K)`` -> both ``(B, K, h, w)``; float32 for half
        inputs. Keep landmarks in float32: beyond 256 pixels float16 rounds coordinates to a quarter
        of a pixel, bfloat16 to two pixels.

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
    size = check_size("heatmap_size", heatmap_size)
    bump = Bump(sigma, truncate, near_weight, far_weight, near_threshold, variant)
    along_y, along_x, reach_x, least_x, far = landmark_profiles(
        landmarks, visible, bump, image_size=image_size, heatmap_size=size
    )
    heatmaps = along_y[..., :, None] * along_x[..., None, :]

    with torch.no_grad():
        weights = torch.empty_like(heatmaps)
        for part, reach, least, base in in_chunks(weights, reach_x, least_x, far):
            torch.gt(reach[..., None, :], least[..., :, None], out=part)
            torch.add(base[..., None, None], part, alpha=near_weight - far_weight, out=part)
    return Heatmaps(heatmaps, weights)
