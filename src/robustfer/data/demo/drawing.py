"""Paint a synthetic face: colours, strokes, light and camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from robustfer.data.demo.face_shape import (
    GLASSES,
    HALF_WIDTHS,
    JAW,
    PARTS,
    ROW,
    UNIT,
    Array,
    place,
)

Colour = tuple[int, int, int]

_FINE = 3  # an image is painted this many times larger, then averaged

_SKIN = ((255, 226, 208), (246, 204, 174), (230, 178, 142), (202, 142, 106), (150, 98, 70),
         (108, 70, 52))  # fmt: skip
_HAIR = ((24, 20, 22), (58, 38, 28), (104, 66, 38), (158, 74, 36), (212, 172, 106),
         (150, 150, 152), (222, 222, 224))  # fmt: skip
_IRIS = ((62, 38, 24), (92, 60, 30), (96, 112, 62), (74, 120, 150), (98, 104, 112))
_FRAMES = ((22, 22, 26), (96, 30, 34), (70, 74, 84), (150, 110, 50))


def colours(face: Mapping[str, float]) -> dict[str, Colour]:
    """Return the colours of a face's parts."""
    dark = (24, 16, 16)
    skin, hair = _pick(_SKIN, face["skin"]), _pick(_HAIR, face["hair_colour"])
    wall, clothes = _tinted(face, "wall"), _tinted(face, "clothes")
    lips = _blend(skin, (170, 40, 50), 0.45)
    return {
        "wall": wall,
        "other wall": _blend(wall, clothes, 0.5),
        "clothes": clothes,
        "skin": skin,
        "shade": _blend(skin, (70, 20, 10), 0.6),
        "hair": hair,
        "hair behind": _blend(hair, dark, 0.25),
        "brow": _blend(hair, _blend(skin, dark, 0.9), 0.6),
        "beard": _blend(skin, hair, 0.5),
        "lash": dark,
        "white": (244, 242, 240),
        "iris": _pick(_IRIS, face["iris"]),
        "pupil": (12, 10, 12),
        "lips": _blend(lips, (190, 20, 50), 0.5 * face["lipstick"] ** 3),
        "mouth": (70, 16, 20),
        "teeth": (246, 244, 238),
        "frame": _pick(_FRAMES, face["frame"]),
    }


def paint(
    points: Array, face: Mapping[str, float], palette: Mapping[str, Colour], size: int
) -> Image.Image:
    """Paint an outline with a palette on ``size`` x ``size`` pixels, with smooth edges."""
    wide = size * _FINE
    image = Image.new("RGB", (wide, wide), palette["wall"])
    draw = ImageDraw.Draw(image)
    # PIL rounds coordinates down, so whole numbers must be the edges of pixels.
    canvas = place(points, face, wide, first=0.5)
    unit = UNIT * face["zoom"] * wide
    bands = _bands(canvas[PARTS["lines"]].reshape(-1, 13, 2), HALF_WIDTHS * unit)
    skin, shade = palette["skin"], palette["shade"]

    def fill(part: str, colour: Colour) -> None:
        draw.polygon(canvas[PARTS[part]].ravel().tolist(), fill=colour)

    def stroke(line: str, colour: Colour) -> None:
        draw.polygon(bands[ROW[line]].tolist(), fill=colour)

    # From back to front
    draw.rectangle((face["wall_edge"] * wide, -1, 2 * wide, wide), fill=palette["other wall"])
    if not face["bald"]:
        fill("hair behind", palette["hair behind"])
    fill("body", _blend(skin, shade, 0.5))
    fill("clothes", palette["clothes"])
    fill("left ear", _blend(skin, shade, 0.25))
    fill("right ear", _blend(skin, shade, 0.25))
    fill("head", skin)
    if face["beard"]:
        fill("beard", palette["beard"])
    jaw = canvas[PARTS["head"]][: len(JAW)]
    draw.line(jaw.ravel().tolist(), fill=shade, width=max(1, round(0.05 * unit)))

    for line, depth in _creases(face).items():
        if depth > 0.3:
            stroke(line, _blend(skin, shade, min(depth, 1.0)))
    stroke("nose bridge", _blend(skin, shade, 0.45))
    stroke("nose base", _blend(skin, shade, 0.9))
    for side in ("left", "right"):
        fill(f"{side} eye", palette["white"])
        fill(f"{side} iris", palette["iris"])
        fill(f"{side} pupil", palette["pupil"])
        stroke(f"lower lid {side}", shade)
        stroke(f"upper lid {side}", palette["lash"])
        stroke(f"brow {side}", palette["brow"])
    for part in ("lips", "mouth", "teeth"):
        fill(part, palette[part])
    stroke("mouth top", palette["mouth"])

    if not face["bald"]:
        fill("hair", palette["hair"])
    if face["glasses"]:
        for line in GLASSES:
            stroke(line, palette["frame"])
    return image.reduce(_FINE)


def photograph(
    image: Image.Image, face: Mapping[str, float], random: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a photograph (3, H, W) of a painting, with blur, light, colour cast and grain."""
    if face["blur"] > 0:
        image = image.filter(ImageFilter.BoxBlur(face["blur"] * image.width / 48))
    pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
    across, fall_off = _across(image.width)
    light = face["light_x"] * across + (face["light"] - fall_off)
    light = (-face["light_y"] * across - fall_off)[:, None] + light
    cast = np.array([1 + face["warmth"], 1 + face["tint"], 1 - face["warmth"]], dtype=np.float32)
    pixels *= face["contrast"]
    pixels += 128 * (1 - face["contrast"])
    pixels *= cast[:, None, None] * light
    grain = random.integers(-128, 128, pixels.shape, dtype=np.int8)
    pixels += grain * np.float32(face["grain"] / 128)
    shown: NDArray[np.uint8] = np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
    return shown


@lru_cache(maxsize=8)
def _across(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return positions from -1 to 1 across an image, and how much darker its edges are."""
    across = np.linspace(-1, 1, size, dtype=np.float32)
    return across, np.float32(0.1) * across**2


def _creases(face: Mapping[str, float]) -> dict[str, float]:
    """Return the depth of each skin fold, from 0 (none) to 1."""
    smile, age = max(face["corner"], 0.0), face["age"]
    forehead = max(face["brow_raise"], 0.0) * 0.6 + max(face["brow_inner"], 0.0) * 0.4 + 0.3 * age
    frown = face["brow_draw"] * 0.9 + 0.2 * age
    fold = max(smile, face["lip_raise"]) * 0.8 + 0.3 * age
    pouch = face["lid_raise"] * 0.7 + 0.4 * age
    return {
        **dict.fromkeys(("forehead low", "forehead high"), forehead),
        **dict.fromkeys(("frown left", "frown right"), frown),
        **dict.fromkeys(("wrinkle low", "wrinkle high"), face["wrinkle"] * 0.9),
        **dict.fromkeys(("fold left", "fold right"), fold),
        **dict.fromkeys(("pouch left", "pouch right"), pouch),
    }


def _bands(lines: Array, half_widths: Array) -> Array:
    """Return outlines (lines, 2 * 26) of lines with a width."""
    along = np.empty_like(lines)
    along[:, 1:-1] = lines[:, 2:] - lines[:, :-2]
    along[:, 0] = lines[:, 1] - lines[:, 0]
    along[:, -1] = lines[:, -1] - lines[:, -2]
    x, y = along[..., 0], along[..., 1]
    scale = half_widths / np.sqrt(x * x + y * y)
    across = np.stack([-y * scale, x * scale], axis=2)
    bands = np.concatenate([lines + across, (lines - across)[:, ::-1]], axis=1)
    return bands.reshape(len(lines), -1)


def _blend(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two colours, with a share of the second."""
    keep = 1 - share
    return (
        round(keep * first[0] + share * second[0]),
        round(keep * first[1] + share * second[1]),
        round(keep * first[2] + share * second[2]),
    )


def _tinted(face: Mapping[str, float], name: str) -> Colour:
    grey = face[name]
    return round(grey + face[f"{name}_red"]), round(grey), round(grey + face[f"{name}_blue"])


def _pick(along: Sequence[Colour], position: float) -> Colour:
    """Return the interpolated colour at a position from 0 to 1 along the colours."""
    position *= len(along) - 1
    first = min(int(position), len(along) - 2)
    return _blend(along[first], along[first + 1], position - first)
