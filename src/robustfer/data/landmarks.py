"""Layouts of facial landmarks: what each point is, and which points trade places in a mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustfer._checks import check_floating, check_shapes


@dataclass(frozen=True, kw_only=True)
class LandmarkLayout:
    """What the points of a layout are. Left and right are those of the picture, not the person's.

    Attributes:
        name: name of the layout.
        num_points: number of points.
        swap: for each point the one that takes its place when the picture is mirrored: the left
            corner of the mouth and its right corner, the tip of the nose and itself.
        groups: parts of the face (``left_brow``, ``right_brow``, ``left_eye``, ``right_eye``,
            ``nose``, ``mouth``, ``jaw``, those that the layout has) -> their points.

    Raises:
        ValueError: ``swap`` does not pair all points, or a group has a point that there is not.
    """

    name: str
    num_points: int
    swap: tuple[int, ...] = field(repr=False)
    groups: Mapping[str, tuple[int, ...]] = field(repr=False, hash=False)

    def __post_init__(self) -> None:
        points = range(self.num_points)
        if sorted(self.swap) != list(points):
            raise ValueError(
                f"swap of {self.name} must hold each of 0 to {self.num_points - 1} once, "
                f"got {self.swap}"
            )
        for point in points:
            if self.swap[self.swap[point]] != point:
                raise ValueError(
                    f"swap of {self.name} must pair points, but {point} goes to "
                    f"{self.swap[point]} and that to {self.swap[self.swap[point]]}"
                )
        for group, members in self.groups.items():
            outside = [point for point in members if point not in points]
            if outside:
                raise ValueError(
                    f"group {group} of {self.name} has points {outside}, but there are only "
                    f"0 to {self.num_points - 1}"
                )


def layout(points: int | LandmarkLayout) -> LandmarkLayout:
    """Return the layout of 5, 19, 68 or 98 points.

    - 5: left eye, right eye, tip of the nose, left and right corner of the mouth (face detectors).
    - 19: AFLW without the ears: three points for each brow, each eye, nose and mouth, left to
      right, and the chin (LA-Net).
    - 68: iBUG 300-W: jaw from left to right, brows, nose, eyes, outer and inner lips.
    - 98: WFLW: as 68, but denser, the brows with both edges, and the pupils last.

    Args:
        points: number of points; a layout, of one's own too, is returned as it is.

    Raises:
        ValueError: no layout of that many points is known.

    >>> layout(5).swap
    (1, 0, 2, 4, 3)
    >>> layout(19).groups["left_brow"], layout(19).groups["right_brow"]
    ((0, 1, 2), (3, 4, 5))
    """
    if isinstance(points, LandmarkLayout):
        return points
    if points not in _LAYOUTS:
        raise ValueError(
            f"layouts of {', '.join(map(str, _LAYOUTS))} points are known, got {points!r}; make a "
            "LandmarkLayout for any other"
        )
    return _LAYOUTS[points]


def swap_left_right(values: Tensor, layout: LandmarkLayout, *, dim: int = 1) -> Tensor:
    """Reorder values a point, say visibility or heat maps, as the mirrored picture names them.

    Args:
        values: one slice a point along ``dim``.
        layout: what the points are.
        dim: the axis of the points.

    Shape:
        any, with K at ``dim`` -> the same.

    Raises:
        ValueError: there is not one slice a point.

    >>> swap_left_right(torch.tensor([[True, False, True, True, True]]), layout(5))
    tensor([[False,  True,  True,  True,  True]])
    """
    if values.shape[dim] != layout.num_points:
        raise ValueError(
            f"values must have {layout.num_points} points of {layout.name} along axis {dim}, got "
            f"shape {tuple(values.shape)}"
        )
    # From pageable memory such a copy waits for nothing; the device is not held up.
    order = torch.tensor(layout.swap, device="cpu").to(values.device, non_blocking=True)
    return values.index_select(dim, order)


def mirror_landmarks(landmarks: Tensor, layout: LandmarkLayout, *, width: int) -> Tensor:
    """Landmarks of the mirrored images: ``x`` becomes ``width - 1 - x``, left becomes right.

    The middle of a pixel is a whole number, so that the first and the last column trade places.
    ``visible`` and heat maps go through :func:`swap_left_right`.

    Args:
        landmarks: points (x, y) in pixels of the image.
        layout: what the points are.
        width: width of the image in pixels.

    Shape:
        landmarks ``(B, K, 2)`` -> the same.

    Raises:
        ValueError: shape or dtype does not fit, or there are not as many points as in the layout.

    >>> points = torch.tensor([[[2.0, 3.0], [7.0, 4.0], [4.0, 5.0], [3.0, 8.0], [5.0, 9.0]]])
    >>> mirror_landmarks(points, layout(5), width=10)[0].tolist()
    [[2.0, 4.0], [7.0, 3.0], [5.0, 5.0], [4.0, 9.0], [6.0, 8.0]]
    """
    check_shapes(landmarks=(landmarks, "B K 2"))
    check_floating(landmarks=landmarks)
    if width < 1:
        raise ValueError(f"width must be a positive number of pixels, got {width}")
    x, y = swap_left_right(landmarks, layout).unbind(dim=-1)
    return torch.stack([(width - 1) - x, y], dim=-1)


def resize_landmarks(
    landmarks: Tensor, *, from_size: int | tuple[int, int], to_size: int | tuple[int, int]
) -> Tensor:
    """Landmarks of images that were resized, say by a reader's ``size=``.

    The middle of a pixel is a whole number, so a point moves to ``(x + 0.5) * to / from - 0.5``;
    without the halves all points are off by half of what a pixel grew.

    Args:
        landmarks: points (x, y) in pixels of the images before.
        from_size: size of the images before, (height, width) or one number for both.
        to_size: size of the images now, likewise.

    Shape:
        landmarks ``(B, K, 2)`` -> the same.

    Raises:
        ValueError: shape or dtype does not fit, or a size is not positive.

    >>> resize_landmarks(torch.tensor([[[0.0, 47.0]]]), from_size=48, to_size=96)
    tensor([[[ 0.5000, 94.5000]]])
    """
    check_shapes(landmarks=(landmarks, "B K 2"))
    check_floating(landmarks=landmarks)
    (from_height, from_width), (to_height, to_width) = _pair(from_size), _pair(to_size)
    if min(from_height, from_width, to_height, to_width) < 1:
        raise ValueError(
            f"from_size and to_size must be positive numbers of pixels, got {from_size} and "
            f"{to_size}"
        )
    x, y = landmarks.unbind(dim=-1)
    return torch.stack(
        [(x + 0.5) * (to_width / from_width) - 0.5, (y + 0.5) * (to_height / from_height) - 0.5],
        dim=-1,
    )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _down(first: int, last: int) -> tuple[int, ...]:
    """From ``first`` down to ``last``, both included: a row of points seen in the mirror."""
    return tuple(range(first, last - 1, -1))


def _up(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


_FACE_5 = LandmarkLayout(
    name="face-5",
    num_points=5,
    swap=(1, 0, 2, 4, 3),
    groups={"left_eye": (0,), "right_eye": (1,), "nose": (2,), "mouth": (3, 4)},
)

_AFLW_19 = LandmarkLayout(
    name="aflw-19",
    num_points=19,
    swap=(*_down(5, 0), *_down(11, 6), *_down(14, 12), *_down(17, 15), 18),
    groups={
        "left_brow": _up(0, 2),
        "right_brow": _up(3, 5),
        "left_eye": _up(6, 8),
        "right_eye": _up(9, 11),
        "nose": _up(12, 14),
        "mouth": _up(15, 17),
        "jaw": (18,),
    },
)

# An eye runs from its left corner along the upper lid to its right corner and back below.
_IBUG_68 = LandmarkLayout(
    name="ibug-68",
    num_points=68,
    swap=(
        *_down(16, 0),
        *_down(26, 17),
        *_up(27, 30),
        *_down(35, 31),
        *(*_down(45, 42), 47, 46, *_down(39, 36), 41, 40),
        *(*_down(54, 48), *_down(59, 55)),
        *(*_down(64, 60), *_down(67, 65)),
    ),
    groups={
        "jaw": _up(0, 16),
        "left_brow": _up(17, 21),
        "right_brow": _up(22, 26),
        "nose": _up(27, 35),
        "left_eye": _up(36, 41),
        "right_eye": _up(42, 47),
        "mouth": _up(48, 67),
    },
)

# A brow runs along its upper edge from left to right and back along the lower one; the upper
# edges have the tips of both: 33, and 46 on the right.
_WFLW_98 = LandmarkLayout(
    name="wflw-98",
    num_points=98,
    swap=(
        *_down(32, 0),
        *(*_down(46, 42), *_down(50, 47), *_down(37, 33), *_down(41, 38)),
        *_up(51, 54),
        *_down(59, 55),
        *(*_down(72, 68), *_down(75, 73), *_down(64, 60), *_down(67, 65)),
        *(*_down(82, 76), *_down(87, 83)),
        *(*_down(92, 88), *_down(95, 93)),
        *(97, 96),
    ),
    groups={
        "jaw": _up(0, 32),
        "left_brow": _up(33, 41),
        "right_brow": _up(42, 50),
        "nose": _up(51, 59),
        "left_eye": (*_up(60, 67), 96),
        "right_eye": (*_up(68, 75), 97),
        "mouth": _up(76, 95),
    },
)

_LAYOUTS = {one.num_points: one for one in (_FACE_5, _AFLW_19, _IBUG_68, _WFLW_98)}
