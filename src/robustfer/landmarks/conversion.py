"""Convert landmarks of a dense layout to a sparser one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from robustfer._checks import check_floating_dtype, check_mask, check_shapes
from robustfer.landmarks.layouts import LandmarkLayout


def convert_landmarks(
    landmarks: Tensor, visible: Tensor, *, source: LandmarkLayout, target: LandmarkLayout
) -> tuple[Tensor, Tensor]:
    """Convert landmarks to a sparser layout: 98 to 68, 19 or 5 points, 68 to 19 or 5, 19 to 5.

    A new point is the source point at the same place of the face, or a mean of source points. The
    middle of an eye is the mean of its lids. The middle of the mouth is the mean of the inner lips.
    A new point is visible if all its source points are.

    Args:
        landmarks: points (x, y) of the layout ``source``.
        visible: whether each point is known.
        source: layout of ``landmarks``.
        target: layout to convert to.

    Shape:
        landmarks ``(B, K, 2)``, visible ``(B, K)`` -> ``(B, K', 2)``, ``(B, K')``.

    Raises:
        ValueError: shapes do not fit, or ``source`` cannot be converted to ``target``.

    >>> from robustfer.landmarks.layouts import landmark_layout
    >>> points = torch.arange(19.0)[None, :, None].expand(1, 19, 2)
    >>> seen = torch.ones(1, 19, dtype=torch.bool)
    >>> dense, sparse = landmark_layout(19), landmark_layout(5)
    >>> found, _ = convert_landmarks(points, seen, source=dense, target=sparse)
    >>> found[0, :, 0]
    tensor([ 7., 10., 13., 15., 17.])
    """
    sizes = check_shapes(landmarks=(landmarks, "B K 2"), visible=(visible, "B K"))
    check_floating_dtype(landmarks=landmarks)
    check_mask(visible=visible)
    if sizes["K"] != source.num_points:
        raise ValueError(
            f"landmarks must have the {source.num_points} points of {source.name}, got {sizes['K']}"
        )
    parts = _CONVERSIONS.get((source.name, target.name))
    if parts is None:
        ways = ", ".join(f"{one} to {other}" for one, other in _CONVERSIONS)
        raise ValueError(
            f"{source.name} cannot be converted to {target.name}; choose one of {ways}"
        )
    groups = [list(part) for part in parts]
    points = torch.stack([landmarks[:, part].mean(dim=1) for part in groups], dim=1)
    return points, torch.stack([visible[:, part].all(dim=1) for part in groups], dim=1)


def _parts(*parts: int | Iterable[int]) -> tuple[tuple[int, ...], ...]:
    return tuple((part,) if isinstance(part, int) else tuple(part) for part in parts)


# (source, target) -> for each point of target, the points of source to average.
_CONVERSIONS: dict[tuple[str, str], tuple[tuple[int, ...], ...]] = {
    ("aflw-19", "face-5"): _parts(7, 10, 13, 15, 17),
    ("ibug-68", "face-5"): _parts(range(36, 42), range(42, 48), 30, 48, 54),
    ("ibug-68", "aflw-19"): _parts(
        *(17, 19, 21, 22, 24, 26),
        *(36, (37, 38, 40, 41), 39, 42, (43, 44, 46, 47), 45),
        *(31, 30, 35),
        *(48, (62, 66), 54),
        8,
    ),
    ("wflw-98", "face-5"): _parts(range(60, 68), range(68, 76), 54, 76, 82),
    ("wflw-98", "aflw-19"): _parts(
        *(33, (35, 40), (37, 38), (42, 50), (44, 48), 46),
        *(60, (61, 62, 63, 65, 66, 67), 64, 68, (69, 70, 71, 73, 74, 75), 72),
        *(55, 54, 59),
        *(76, (90, 94), 82),
        16,
    ),
    ("wflw-98", "ibug-68"): _parts(
        *range(0, 33, 2),
        *(*range(33, 38), *range(42, 47)),
        *range(51, 60),
        *(60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75),
        *range(76, 96),
    ),
}
