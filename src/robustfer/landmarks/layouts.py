"""Define layouts of facial landmarks: the meaning of each point, and pairs of left and right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def check_swap(swap: Sequence[int], num_points: int, *, name: str = "swap") -> tuple[int, ...]:
    """Return the mirrored order of points as a tuple, and require that it pairs them."""
    order = tuple(swap)
    paired = sorted(order) == list(range(num_points)) and all(
        order[partner] == point for point, partner in enumerate(order)
    )
    if not paired:
        raise ValueError(
            f"{name} must pair the {num_points} points, got {order}: give each of 0 to "
            f"{num_points - 1} once, so that swapping twice gives the first order; for example "
            "robustfer.landmarks.landmark_layout(points).swap"
        )
    return order


@dataclass(frozen=True, kw_only=True)
class LandmarkLayout:
    """Describe the points of a layout. Left and right are those of the image.

    Attributes:
        name: name of the layout.
        num_points: number of points.
        swap: for each point, the point at its place in the mirrored image.
        groups: points of each part of the face: some of ``left_brow``, ``right_brow``,
            ``left_eye``, ``right_eye``, ``nose``, ``mouth`` and ``jaw``.

    Raises:
        ValueError: ``swap`` does not pair all points, or a group has a point outside the layout.
    """

    name: str
    num_points: int
    swap: tuple[int, ...] = field(repr=False)
    groups: Mapping[str, tuple[int, ...]] = field(repr=False, hash=False)

    def __post_init__(self) -> None:
        check_swap(self.swap, self.num_points, name=f"swap of {self.name}")
        points = range(self.num_points)
        for group, members in self.groups.items():
            outside = [point for point in members if point not in points]
            if outside:
                raise ValueError(
                    f"group {group} of {self.name} has points {outside}, expected only "
                    f"0 to {self.num_points - 1}"
                )


def landmark_layout(points: int | LandmarkLayout) -> LandmarkLayout:
    """Return the layout of 5, 19, 68 or 98 points.

    - 5: left eye, right eye, tip of the nose, left and right corner of the mouth (face detectors).
    - 19: AFLW without the ears: three points for each brow, each eye, nose and mouth, from left to
      right, and the chin (LA-Net).
    - 68: iBUG 300-W: jaw from left to right, brows, nose, eyes, outer and inner lips.
    - 98: WFLW: like 68 but denser, with both edges of the brows, and the pupils last.

    Args:
        points: number of points. A layout is returned unchanged.

    Raises:
        ValueError: no layout has this number of points.

    >>> landmark_layout(5).swap
    (1, 0, 2, 4, 3)
    >>> [landmark_layout(19).groups[brow] for brow in ("left_brow", "right_brow")]
    [(0, 1, 2), (3, 4, 5)]
    """
    if isinstance(points, LandmarkLayout):
        return points
    if points not in _LAYOUTS:
        raise ValueError(
            f"points must be one of {', '.join(map(str, _LAYOUTS))}, got {points!r}; make a "
            "LandmarkLayout for other points"
        )
    return _LAYOUTS[points]


def _down(first: int, last: int) -> tuple[int, ...]:
    """Return the numbers from ``first`` down to ``last``, both included."""
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

# The points of an eye start at its left corner, follow the upper lid and return along the lower.
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

# The points of a brow follow its upper edge from left to right, and return along the lower one.
# The upper edges contain the outer tips: 33, and 46 on the right.
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
