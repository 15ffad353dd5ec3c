"""Faces that the library draws itself: labelled images for trying things out, without any data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from robustfer._checks import check_range
from robustfer.data import _drawing
from robustfer.data._face_shape import HAIR_STYLES, LANDMARKS, outline, place
from robustfer.data.classes import EXPRESSIONS
from robustfer.data.dataset import LabeledFaces

_SPLITS = ("train", "test", "validation")

# What an expression does to a face at rest, all of whose actions are 0. Roughly the muscles'
# action units: an expression is told by brows, eyes and mouth together.
_ACTIONS = ("brow_raise", "brow_inner", "brow_draw", "eye_open", "lid_raise", "wrinkle",
            "lip_raise", "mouth_open", "mouth_width", "corner", "press", "teeth")  # fmt: skip
_EXPRESSIONS = {
    "surprise": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, -0.6, 0.0, 0.0, 0.0),
    "fear": (0.5, 0.9, 0.7, 0.9, 0.2, 0.0, 0.1, 0.45, 0.6, -0.5, 0.0, 0.6),
    "disgust": (-0.6, 0.0, 0.5, -0.5, 0.8, 1.0, 1.0, 0.15, -0.1, -0.5, 0.0, 0.8),
    "happiness": (0.2, 0.1, 0.0, -0.1, 0.5, 0.0, 0.0, 0.45, 0.7, 1.0, 0.0, 0.7),
    "sadness": (-0.1, 1.0, 0.4, -0.4, 0.0, 0.0, 0.0, 0.0, -0.2, -1.0, 0.2, 0.0),
    "anger": (-0.9, -0.9, 1.0, 0.1, 0.5, 0.2, 0.0, 0.0, -0.1, -0.35, 1.0, 0.0),
    "neutral": (0.0,) * len(_ACTIONS),
}
_PROTOTYPES = np.array([_EXPRESSIONS[name] for name in EXPRESSIONS])
_LEAST_ACTION = np.where(_PROTOTYPES.min(axis=0) < 0, -1.2, 0.0)

# What differs between faces whatever they express, from the least to the greatest value.
_LOOKS: dict[str, tuple[float, float]] = {
    # The head before the camera: radians, shares of the depth, a factor, shares of the size.
    "tilt": (-0.22, 0.22), "yaw": (-0.26, 0.26), "pitch": (-0.15, 0.15), "zoom": (0.88, 1.08),
    "shift_x": (-0.05, 0.05), "shift_y": (-0.02, 0.06),
    # Who it is: factors, and lengths in half head widths.
    "head_width": (0.86, 1.02), "chin": (0.92, 1.08), "jaw": (-0.15, 0.35),
    "eye_size": (0.88, 1.15), "eye_gap": (0.38, 0.45), "eye_slant": (-0.03, 0.03),
    "brow_height": (-0.03, 0.03), "nose_length": (0.8, 1.2), "nose_width": (0.8, 1.3),
    "mouth_size": (0.85, 1.12), "lips": (0.5, 1.2), "asymmetry": (-0.5, 0.5), "age": (0.0, 1.0),
    "gaze_x": (-0.05, 0.05), "gaze_y": (-0.02, 0.02), "hair": (0, HAIR_STYLES),
    # Colours: places in a palette, or brightness.
    "skin": (0.0, 1.0), "hair_colour": (0.0, 1.0), "iris": (0.0, 1.0), "frame": (0.0, 1.0),
    "lipstick": (0.0, 1.0), "clothes": (40.0, 210.0), "clothes_red": (-40.0, 40.0),
    "clothes_blue": (-40.0, 40.0), "wall": (60.0, 215.0), "wall_red": (-35.0, 35.0),
    "wall_blue": (-35.0, 35.0), "wall_edge": (-0.6, 1.6),
    # Light and camera: factors, a radius in pixels of 48 (none below 0), grey levels.
    "light": (0.8, 1.2), "light_x": (-0.3, 0.3), "light_y": (-0.15, 0.25),
    "warmth": (-0.07, 0.07), "tint": (-0.03, 0.03), "contrast": (0.75, 1.1),
    "blur": (-0.6, 0.6), "grain": (2.0, 14.0),
}  # fmt: skip
_LEAST_LOOK, _LOOK_RANGE = (
    np.array([f(*ends) for ends in _LOOKS.values()])
    for f in (lambda low, _: low, lambda low, high: high - low)
)
# How often a face has these.
_CHANCES = {"bald": 0.08, "beard": 0.15, "glasses": 0.25}
_CUTS = np.cumsum([len(_LOOKS), len(_CHANCES), len(_ACTIONS)])


class DemoFaces(LabeledFaces):
    """Drawn faces."""

    def __init__(
        self,
        num_samples: int = 4000,
        *,
        split: str = "train",
        size: int = 48,
        seed: int = 0,
        ambiguity: float = 0.6,
    ) -> None:
        check_range("ambiguity", ambiguity, 0.0, 1.0)
        self.size, self.seed, self.split, self.ambiguity = size, seed, split, ambiguity
        blocks = range(-(-num_samples // 7))
        order = [self._random(0, block).random(7).argsort() for block in blocks]
        super().__init__(
            classes=EXPRESSIONS,
            ids=[f"demo-{split}-{seed}-{row:06d}" for row in range(num_samples)],
            targets=torch.from_numpy(np.concatenate(order)[:num_samples]),
        )
        self._expressions = self.targets

    def load_image(self, row: int) -> Tensor:
        face, random = self._face(row)
        image = _drawing.paint(outline(face), face, _drawing.colours(face), self.size)
        return torch.from_numpy(_drawing.photograph(image, face, random))

    def landmarks(self, row: int) -> Tensor:
        face, _ = self._face(row)
        placed = place(outline(face), face, self.size)[LANDMARKS]
        return torch.from_numpy(placed.astype(np.float32))

    def _random(self, kind: int, number: int) -> np.random.Generator:
        key = (_SPLITS.index(self.split), kind, number)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _face(self, row: int):
        random = self._random(1, row)
        draws = random.random(len(_LOOKS) + len(_CHANCES) + len(_ACTIONS) + 3)
        looks, chances, jitter, (second, share, strength) = np.split(draws, _CUTS)
        expression = int(self._expressions[row])
        other = (expression + 1 + int(second * 6)) % 7
        share = self.ambiguity * share**2
        actions = (1 - share) * _PROTOTYPES[expression] + share * _PROTOTYPES[other]
        actions = (0.6 + 0.5 * strength) * actions + 0.3 * (jitter - 0.5)
        face = dict(zip(_LOOKS, (_LEAST_LOOK + looks * _LOOK_RANGE).tolist()))
        face |= dict(zip(_ACTIONS, np.clip(actions, _LEAST_ACTION, 1.2).tolist()))
        face |= {k: float(u < p) for (k, p), u in zip(_CHANCES.items(), chances.tolist())}
        return face, random
