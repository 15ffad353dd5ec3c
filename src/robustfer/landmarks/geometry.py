"""Mirror and resize landmarks with their image. Whole numbers are the middles of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import check_floating_dtype, check_shapes, check_size, check_whole_number
from robustfer.landmarks.layouts import LandmarkLayout


def mirror_points(points: Tensor, width: int) -> Tensor:
    """Return points (..., 2) in mirrored images: ``x`` becomes ``width - 1 - x``."""
    x, y = points.unbind(dim=-1)
    return torch.stack([(width - 1) - x, y], dim=-1)


def resize_coordinate(position: Tensor, old: int, new: int) -> Tensor:
    """Return positions along an axis of ``old`` pixels that is resized to ``new`` pixels.

    The halves follow ``interpolate(align_corners=False)``, which aligns the borders of pixels.
    """
    return (position + 0.5) * (new / old) - 0.5


def resize_points(points: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return points (..., 2) of images resized from (height, width) ``old`` to ``new``."""
    x, y = points.unbind(dim=-1)
    return torch.stack(
        [resize_coordinate(x, old[1], new[1]), resize_coordinate(y, old[0], new[0])], dim=-1
    )


def inside(position: Tensor, pixels: int) -> Tensor:
    """Return which positions are on an axis of ``pixels`` pixels. A NaN is not."""
    return (position >= -0.5) & (position <= pixels - 0.5)


def mirror_landmarks(landmarks: Tensor, layout: LandmarkLayout, *, width: int) -> Tensor:
    """Mirror landmarks with their images: ``x`` becomes ``width - 1 - x``, left and right swap.

    ``visible[:, layout.swap]`` reorders ``visible``. Heat maps are reordered in the same way.

    Args:
        landmarks: points (x, y) in pixels of the image.
        layout: layout of the points.
        width: width of the image in pixels.

    Shape:
        landmarks ``(B, K, 2)`` -> the same.

    Raises:
        ValueError: shape or dtype is wrong, or the number of points is not that of the layout.

    >>> from robustfer.landmarks import landmark_layout
    >>> points = torch.tensor([[[2.0, 3.0], [7.0, 4.0], [4.0, 5.0], [3.0, 8.0], [5.0, 9.0]]])
    >>> mirror_landmarks(points, landmark_layout(5), width=10)[0].tolist()
    [[2.0, 4.0], [7.0, 3.0], [5.0, 5.0], [4.0, 9.0], [6.0, 8.0]]
    """
    check_shapes(landmarks=(landmarks, "B K 2"))
    check_floating_dtype(landmarks=landmarks)
    width = check_whole_number("width", width, 1)
    if landmarks.shape[1] != layout.num_points:
        raise ValueError(
            f"landmarks must have the {layout.num_points} points of {layout.name}, got shape "
            f"{tuple(landmarks.shape)}"
        )
    # A copy from pageable memory does not synchronise with the device.
    order = torch.tensor(layout.swap, device="cpu").to(landmarks.device, non_blocking=True)
    return mirror_points(landmarks.index_select(1, order), width)


def resize_landmarks(
    landmarks: Tensor, *, from_size: int | tuple[int, int], to_size: int | tuple[int, int]
) -> Tensor:
    """Resize landmarks with their images, for example after a reader's ``size=``.

    Whole numbers are the middles of pixels, so ``x`` becomes ``(x + 0.5) * to / from - 0.5``.

    Args:
        landmarks: points (x, y) in pixels of the old images.
        from_size: old size of the images, (height, width) or one number for both.
        to_size: new size of the images, in the same form.

    Shape:
        landmarks ``(B, K, 2)`` -> the same.

    Raises:
        ValueError: shape or dtype is wrong, or a size is not positive.

    >>> resize_landmarks(torch.tensor([[[0.0, 47.0]]]), from_size=48, to_size=96)
    tensor([[[ 0.5000, 94.5000]]])
    """
    check_shapes(landmarks=(landmarks, "B K 2"))
    check_floating_dtype(landmarks=landmarks)
    before, now = check_size("from_size", from_size), check_size("to_size", to_size)
    return resize_points(landmarks, before, now)
