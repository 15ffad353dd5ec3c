"""Compute the shape of a synthetic face: outlines, their place in the image, and 68 landmarks.

Lengths are in half head widths from the middle of the head, x to the right and y down. Every
stroke is a line of 13 points. Landmarks are points of these lines and of the jaw, so they always
agree with the drawing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Half the width of a head of normal size, as a share of the image.
UNIT = 0.365

#: Half the width of each line in its middle and at its ends. 0: the line is an edge, not drawn.
LINES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("brow left", "brow right"), (0.06, 0.025)),
    **dict.fromkeys(("upper lid left", "upper lid right"), (0.034, 0.026)),
    **dict.fromkeys(("lower lid left", "lower lid right"), (0.016, 0.010)),
    **dict.fromkeys(("pouch left", "pouch right"), (0.022, 0.006)),
    **{"nose bridge": (0.024, 0.014), "nose base": (0.036, 0.016)},
    **dict.fromkeys(("wrinkle low", "wrinkle high"), (0.026, 0.008)),
    **dict.fromkeys(("frown left", "frown right"), (0.028, 0.010)),
    **dict.fromkeys(("forehead low", "forehead high"), (0.024, 0.008)),
    **dict.fromkeys(("fold left", "fold right"), (0.026, 0.008)),
    **dict.fromkeys(("upper lip", "lower lip", "mouth bottom"), (0.0, 0.0)),
    "mouth top": (0.026, 0.018),
    **dict.fromkeys(("rim top left", "rim top right"), (0.028, 0.028)),
    **dict.fromkeys(("rim bottom left", "rim bottom right"), (0.022, 0.028)),
    **dict.fromkeys(("temple left", "temple right", "glasses bridge"), (0.026, 0.026)),
}
ROW = {name: row for row, name in enumerate(LINES)}
GLASSES = tuple(LINES)[-7:]

_U = np.linspace(-1.0, 1.0, 13)  # along a line, left to right; 12 steps divide by 2, 3, 4 and 6
_BOW = 1 - _U**2
_ROUND = np.sqrt(_BOW)
_LID = _BOW**0.75
_CUPID = _BOW**0.7 * (1 - 0.3 * np.exp(-((_U / 0.25) ** 2)))
_SIDE = np.array([[-1.0], [1.0]])  # of the face, image left first
_V = _SIDE * _U  # along a line of either side: -1 next to the nose, 1 outside
_INNER = (1 - _V) / 2
#: Half the widths (lines, 13) along the lines.
HALF_WIDTHS = np.stack([ends + (middle - ends) * _BOW for middle, ends in LINES.values()])
_EYE_LEVEL, _EAR_LEVEL = -0.2, -0.1


def _arc(start: float, end: float, count: int) -> Array:
    """Points of the unit circle between two angles in half turns, both ends included."""
    angle = np.linspace(start * np.pi, end * np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


_CIRCLE = _arc(0, 2, 17)[:-1]
_DISC_RADII = np.array([0.125, 0.062]).reshape(2, 1, 1)  # of iris and pupil
JAW = _arc(1, 0, 17)  # a point for each landmark
_CROWN = _arc(0, -1, 17)[1:-1] * (1, 1.15) + (0, _EAR_LEVEL)
_EARS = _CIRCLE * (0.16, 0.25) + np.array([[[-1.0, 0.02]], [[1.0, 0.02]]])
_BEARD_TOP = np.array([[0.84, 0.1], [0.68, 0.38], [0.44, 0.44], [0.3, 0.36], [-0.3, 0.36],
                       [-0.44, 0.44], [-0.68, 0.38], [-0.84, 0.1]])  # fmt: skip
_BODY = np.array([[-0.44, 0.6], [0.44, 0.6], [0.46, 1.5], [0.0, 1.9], [-0.46, 1.5]])
_CLOTHES = np.array([[-0.5, 1.38], [0.0, 1.62], [0.5, 1.38], [1.2, 1.55], [1.6, 2.6], [-1.6, 2.6],
                     [-1.2, 1.55]])  # fmt: skip

# Hair: heights of the hair line at nine places from temple to temple, the volume of the hair, and
# the height of its end behind the face (None: no long hair).
_STYLES: tuple[tuple[tuple[float, ...], float, float | None], ...] = (
    ((-0.30, -0.72, -0.92, -1.00, -1.02, -1.00, -0.92, -0.72, -0.30), 1.07, None),  # short
    ((-0.10, -0.66, -0.78, -0.80, -0.84, -0.80, -0.78, -0.66, -0.10), 1.10, None),  # fringe
    ((-0.15, -0.60, -0.72, -0.80, -0.90, -1.00, -1.08, -0.86, -0.30), 1.13, None),  # parted
    ((0.15, -0.40, -0.72, -0.94, -1.10, -0.94, -0.72, -0.40, 0.15), 1.14, 1.45),  # long
    ((0.00, -0.64, -0.74, -0.78, -0.80, -0.78, -0.74, -0.64, 0.00), 1.14, 0.85),  # bob
    ((-0.30, -0.70, -0.88, -0.94, -0.96, -0.94, -0.88, -0.70, -0.30), 1.32, 0.20),  # big
    ((-0.30, -0.82, -1.02, -1.13, -1.17, -1.13, -1.02, -0.82, -0.30), 1.03, None),  # thin
)
HAIR_STYLES = len(_STYLES)


def _hair(heights: tuple[float, ...], volume: float, end: float | None) -> tuple[Array, Array]:
    """Return the outlines of the hair in front of and behind the head."""
    x = np.linspace(-1.0, 1.0, 17)
    line = np.stack([x, np.interp(x, x[::2], heights)], axis=1)
    low, wide = (-0.1, volume) if end is None else (end, volume + 0.04)
    ends = np.array([[-1.0, low], [-0.5, low + 0.1], [0.5, low + 0.1], [1.0, low]])
    front = np.concatenate([line, _CROWN * volume])
    return front, np.concatenate([_CROWN * wide, ends * (wide, 1)])


_HAIR = [np.concatenate(_hair(*style)) for style in _STYLES]

# How far nose and glasses stand out of the head.
_RELIEF = np.zeros(13 * len(LINES))
_RELIEF.reshape(-1, 13)[ROW["nose bridge"]] = np.linspace(0.0, 0.35, 13)
_RELIEF.reshape(-1, 13)[ROW["nose base"]] = 0.12 + 0.18 * _BOW
_RELIEF.reshape(-1, 13)[-len(GLASSES) :] = 0.08


def _weights(face: Mapping[str, float]) -> dict[str, float]:
    """Return the weights that lines and head depend on linearly."""
    eye, smile, teeth = face["eye_size"], face["corner"], min(face["teeth"], 1.0)
    full = face["lips"] * (1 - 0.75 * face["press"])
    return {
        "one": 1.0,
        "raise": face["brow_raise"],
        "inner": face["brow_inner"],
        "draw": face["brow_draw"],
        "brow height": face["brow_height"],
        "asymmetry": face["asymmetry"],
        "eye x": face["eye_gap"],
        "eye width": 0.21 * eye,
        "above": 0.125 * eye * (1 + 0.6 * face["eye_open"]),
        "below": 0.075 * eye * (1 + 0.4 * face["eye_open"] - 0.9 * face["lid_raise"]),
        "slant": face["eye_slant"] + 0.06 * face["brow_inner"],  # sad eyes fall off outside
        "tip": 0.20 * face["nose_length"] - 0.06 * face["wrinkle"],
        "nostrils": 0.16 * face["nose_width"] * (1 + 0.2 * face["wrinkle"]),
        "mouth width": 0.36 * face["mouth_size"] * (1 + 0.36 * face["mouth_width"]),
        "smile": smile,
        "lift": 0.09 * face["lip_raise"],
        "opening": face["mouth_open"],
        "teeth opening": teeth * face["mouth_open"],
        "teeth lift": teeth * 0.09 * face["lip_raise"],
        "upper lip": 0.085 * full,
        "lower lip": 0.115 * full,
        "stretch": face["mouth_width"],
        "fold": max(smile, face["lip_raise"]),
        "jaw": face["jaw"],
        "chin": 1.24 * face["chin"],
        "drop": 0.12 * face["mouth_open"] - 0.03 * face["press"],
    }


def _shape(w: Mapping[str, float]) -> dict[str, Array]:
    """Return the parts that change with a face's weights. All are linear in ``w``."""
    lines = np.zeros((len(LINES), 13, 2))

    def put(name: str, x: Array, y: Array) -> None:
        # With two rows, x has both sides of the face. The right line follows the left in LINES.
        rows = slice(ROW[name], ROW[name] + (2 if x.ndim == 2 else 1))
        lines[rows, :, 0], lines[rows, :, 1] = x, y

    def between(upper: str, lower: str) -> Array:
        return np.concatenate([lines[ROW[upper]], lines[ROW[lower], ::-1]])

    one = w["one"]
    x = one * (0.46 * _SIDE + 0.27 * _U) - w["draw"] * 0.08 * _INNER * _SIDE
    raised = w["raise"] + 0.25 * w["asymmetry"] * _SIDE
    y = one * (-0.62 + 0.02 * _V + 0.06 * _V**2) - w["brow height"]
    y = y - 0.17 * raised * (1 - 0.25 * _INNER) - w["inner"] * 0.18 * (_INNER - 0.3)
    put("brow left", x, y)
    put("frown left", one * (0.075 * _SIDE + 0.015 * _U), one * (-0.48 + 0.12 * _U))
    for name, height in (("forehead low", -0.78), ("forehead high", -0.90)):
        y = one * (height - 0.05 * _BOW) - 0.08 * w["raise"] - w["inner"] * 0.1 * (_BOW - 0.5)
        put(name, one * 0.4 * _U, y)

    x, y = w["eye x"] * _SIDE + w["eye width"] * _U, one * _EYE_LEVEL + w["slant"] * _V
    put("upper lid left", x, y - w["above"] * _LID)
    put("lower lid left", x, y + w["below"] * _LID)
    pouch = w["eye x"] * _SIDE + 0.8 * w["eye width"] * _U
    put("pouch left", pouch, one * (_EYE_LEVEL + 0.17 + 0.05 * _BOW))

    x = w["eye x"] * _SIDE + one * 0.29 * _U
    put("rim top left", x, one * (_EYE_LEVEL + 0.03 - 0.26 * _ROUND))
    put("rim bottom left", x, one * (_EYE_LEVEL + 0.03 + 0.26 * _ROUND))
    rim = w["eye x"] + one * 0.29
    put("temple left", (rim + one) / 2 * _SIDE + (one - rim) / 2 * _U, one * _EYE_LEVEL + 0 * _U)
    put("glasses bridge", (w["eye x"] - one * 0.29) * _U, one * (_EYE_LEVEL - 0.03 * _BOW))

    down = (_U + 1) / 2
    put("nose bridge", 0 * _U, one * -0.22 * (1 - down) + w["tip"] * down)
    base = one * (0.02 + 0.075 * _BOW * (1 - 0.6 * _U**2))
    put("nose base", w["nostrils"] * _U, w["tip"] + base)
    put("wrinkle low", one * 0.13 * _U, one * (-0.08 - 0.05 * _BOW))
    put("wrinkle high", one * 0.11 * _U, one * (-0.20 - 0.05 * _BOW))
    x = one * (0.22 + 0.24 * down + 0.06 * _BOW) + w["stretch"] * 0.1 * down
    put("fold left", x * _SIDE, one * (0.24 + 0.34 * down) - 0.08 * w["fold"])

    x = w["mouth width"] * _U
    middle = one * 0.62 + w["smile"] * (0.15 * _BOW - 0.09) + w["asymmetry"] * 0.05 * _U
    top = middle - w["opening"] * 0.09 * _ROUND - w["lift"] * _BOW
    bottom = middle + w["opening"] * 0.36 * _ROUND - w["lift"] * 0.4 * _BOW
    put("mouth top", 0.9 * x, top)
    put("mouth bottom", 0.9 * x, bottom)
    put("upper lip", x, top - w["upper lip"] * _CUPID)
    put("lower lip", x, bottom + w["lower lip"] * _LID)

    along, down = JAW.T
    x = along * (one + w["jaw"] * down**2 * (1 - down**2))
    y = one * _EAR_LEVEL + w["chin"] * down + w["drop"] * down**4
    jaw = np.stack([x, y], axis=1)
    tips = w["teeth opening"] * 0.45 * _ROUND + w["teeth lift"] * 0.6 * _BOW
    top_teeth = lines[ROW["mouth top"]]
    return {
        "lines": lines,
        "head": np.concatenate([jaw, one * _CROWN]),
        "beard": np.concatenate([jaw[1:-1], one * _BEARD_TOP]),
        "left eye": between("upper lid left", "lower lid left"),
        "right eye": between("upper lid right", "lower lid right"),
        "lips": between("upper lip", "lower lip"),
        "mouth": between("mouth top", "mouth bottom"),
        "teeth": np.concatenate([top_teeth, (top_teeth + np.stack([0 * _U, tips], axis=1))[::-1]]),
    }


# Every shape is a weighted sum of these, one for each weight. A face then needs one product.
_NAMES = tuple(_weights(defaultdict(float)))
_UNIT_SHAPES = [_shape({other: float(other == name) for other in _NAMES}) for name in _NAMES]
_BASIS = np.stack([np.concatenate([p.ravel() for p in s.values()]) for s in _UNIT_SHAPES])
_FIXED = np.concatenate([*_EARS, _BODY, _CLOTHES])


def _places() -> dict[str, slice]:
    """Return the rows of each part's points in an outline."""
    sizes = {name: part.size // 2 for name, part in _UNIT_SHAPES[0].items()}
    sizes |= dict.fromkeys(("left iris", "right iris", "left pupil", "right pupil"), len(_CIRCLE))
    sizes |= {"left ear": len(_CIRCLE), "right ear": len(_CIRCLE)}
    sizes |= {"body": len(_BODY), "clothes": len(_CLOTHES)}
    front, behind = _hair(*_STYLES[0])
    sizes |= {"hair": len(front), "hair behind": len(behind)}
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}


#: The rows of each part's points in an outline. ``lines`` come first, 13 points each.
PARTS = _places()


def outline(face: Mapping[str, float]) -> Array:
    """Return the outlines of a face, with parts as in ``PARTS``, in half head widths."""
    weights = _weights(face)
    shape = np.fromiter(weights.values(), float, len(weights)) @ _BASIS
    hair = _HAIR[int(face["hair"])]
    return np.concatenate([shape.reshape(-1, 2), _discs(face, weights), _FIXED, hair])


def _discs(face: Mapping[str, float], w: Mapping[str, float]) -> Array:
    """Return iris and pupil of both eyes, clipped by the lids: (which, side, point, xy)."""
    discs = np.empty((2, 2, len(_CIRCLE), 2))
    along = face["gaze_x"] + _DISC_RADII * _CIRCLE[:, 0]
    u = along / w["eye width"]
    bow = np.maximum(1 - u * u, 0.0)
    lid = np.sqrt(bow * np.sqrt(bow))  # faster than bow**0.75
    middle = _EYE_LEVEL + w["slant"] * _SIDE * u
    height = _EYE_LEVEL - 0.02 + face["gaze_y"] + _DISC_RADII * _CIRCLE[:, 1]
    discs[..., 0] = w["eye x"] * _SIDE + along
    lid_above, lid_below = middle - w["above"] * lid, middle + w["below"] * lid
    discs[..., 1] = np.minimum(np.maximum(height, lid_above), lid_below)
    return discs.reshape(-1, 2)


def place(points: Array, face: Mapping[str, float], size: int, *, first: float = 0.0) -> Array:
    """Place an outline in an image of a size: turn, tilt, scale and move the head.

    ``first`` is the coordinate of the middle of the first pixel. With 0 the mirror image has the
    point (size - 1 - x, y).
    """
    x, y = points[:, 0], points[:, 1]
    # Near parts move when the head turns, while the contour stays.
    depth = np.maximum(1 - x * x - (0.8 * y) ** 2, -0.25)
    depth[: len(_RELIEF)] += _RELIEF  # the lines come first
    x = (x + face["yaw"] * depth) * face["head_width"]
    y = y + face["pitch"] * depth
    unit = UNIT * face["zoom"] * size
    right, down = unit * math.cos(face["tilt"]), unit * math.sin(face["tilt"])
    middle = (size - 1) / 2 + first
    placed = np.empty_like(points)
    placed[:, 0] = right * x - down * y + (middle + face["shift_x"] * size)
    placed[:, 1] = down * x + right * y + (middle + face["shift_y"] * size)
    return placed


#: The landmarks among the points of an outline, in the iBUG order.
LANDMARKS = np.array(
    [PARTS["head"].start + point for point in range(len(JAW))]
    + [
        13 * ROW[name] + point
        for name, points in (
            ("brow left", (0, 3, 6, 9, 12)),
            ("brow right", (0, 3, 6, 9, 12)),
            ("nose bridge", (0, 4, 8, 12)),
            ("nose base", (0, 3, 6, 9, 12)),
            ("upper lid left", (0, 4, 8, 12)),
            ("lower lid left", (8, 4)),
            ("upper lid right", (0, 4, 8, 12)),
            ("lower lid right", (8, 4)),
            ("upper lip", (0, 2, 4, 6, 8, 10, 12)),
            ("lower lip", (10, 8, 6, 4, 2)),
            ("mouth top", (0, 3, 6, 9, 12)),
            ("mouth bottom", (9, 6, 3)),
        )
        for point in points
    ]
)
