"""Where landmarks lie when their image is mirrored or resized. The middle of a pixel is whole."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import check_floating_dtype, check_shapes, check_size, check_whole_number
from robustfer.landmarks.layouts import LandmarkLayout


def mirror_points(points: Tensor, width: int) -> Tensor:
    """Return points (..., 2) of mirrored images: ``x`` becomes ``width - 1 - x``."""
    x, y = points.unbind(dim=-1)
    return torch.stack([(width - 1) - x, y], dim=-1)


def resize_coordinate(position: Tensor, old: int, new: int) -> Tensor:
    """Return where positions along one axis lie once its ``old`` pixels have become ``new``.

    As ``interpolate(align_corners=False)`` does: without the halves all points are off by half of
    what a pixel grew.
    """
    return (position + 0.5) * (new / old) - 0.5


def resize_points(points: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return points (..., 2) of images of (height, width) ``old`` that became ``new``."""
    x, y = points.unbind(dim=-1)
    return torch.stack(
        [resize_coordinate(x, old[1], new[1]), resize_coordinate(y, old[0], new[0])], dim=-1
    )


def inside(position: Tensor, pixels: int) -> Tensor:
    """Return which positions lie on an axis of so many pixels, from -0.5 on; a NaN never does."""
    return (position >= -0.5) & (position <= pixels - 0.5)


def mirror_landmarks(landmarks: Tensor, layout: LandmarkLayout, *, width: int) -> Tensor:
    """Return landmarks of the mirrored images: ``x`` becomes ``width - 1 - x``, left becomes right.

    ``visible[:, layout.swap]`` reorders ``visible``, and heat maps in the same way.

    Args:
        landmarks: points (x, y) in pixels of the image.
        layout: what the points are.
        width: width of the image in pixels.

    Shape:
        landmarks ``(B, K, 2)`` -> the same.

    Raises:
        ValueError: shape or dtype does not fit, or there are not as many points as in the layout.

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
    # From pageable memory such a copy waits for nothing; the device is not held up.
    order = torch.tensor(layout.swap, device="cpu").to(landmarks.device, non_blocking=True)
    return mirror_points(landmarks.index_select(1, order), width)


def resize_landmarks(
    landmarks: Tensor, *, from_size: int | tuple[int, int], to_size: int | tuple[int, int]
) -> Tensor:
    """Return landmarks of images that were resized, for example by a reader's ``size=``.

    The middle of a pixel is a whole number, so a point moves to ``(x + 0.5) * to / from - 0.5``.

    Args:
        landmarks: points (x, y) in pixels of the images before.
        from_size: size of the images before, (height, width) or one number for both.
        to_size: size of the images now, in the same form.

    Shape:
        landmarks ``(B, K, 2)`` -> the same.

    Raises:
        ValueError: shape or dtype does not fit, or a size is not positive.

    >>> resize_landmarks(torch.tensor([[[0.0, 47.0]]]), from_size=48, to_size=96)
    tensor([[[ 0.5000, 94.5000]]])
    """
    check_shapes(landmarks=(landmarks, "B K 2"))
    check_floating_dtype(landmarks=landmarks)
    before, now = check_size("from_size", from_size), check_size("to_size", to_size)
    return resize_points(landmarks, before, now)
