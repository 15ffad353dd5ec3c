"""Draw labelled faces, to try things without a data set."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustfer._checks import check_choice, check_range, check_seed, check_whole_number
from robustfer.data.classes import EXPRESSIONS
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo.drawing import colours, paint, photograph
from robustfer.data.demo.face_shape import HAIR_STYLES, LANDMARKS, Array, outline, place

_SPLITS = ("train", "test", "validation")

# The actions of each expression, similar to action units of muscles. A neutral face has 0 for all.
# Only brows, eyes and mouth together show which expression it is.
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

# The ranges of properties that do not depend on the expression.
_LOOKS: dict[str, tuple[float, float]] = {
    # The pose of the head: radians, shares of the depth, a factor, shares of the size.
    "tilt": (-0.22, 0.22), "yaw": (-0.26, 0.26), "pitch": (-0.15, 0.15), "zoom": (0.88, 1.08),
    "shift_x": (-0.05, 0.05), "shift_y": (-0.02, 0.06),
    # The person: factors, and lengths in half head widths.
    "head_width": (0.86, 1.02), "chin": (0.92, 1.08), "jaw": (-0.15, 0.35),
    "eye_size": (0.88, 1.15), "eye_gap": (0.38, 0.45), "eye_slant": (-0.03, 0.03),
    "brow_height": (-0.03, 0.03), "nose_length": (0.8, 1.2), "nose_width": (0.8, 1.3),
    "mouth_size": (0.85, 1.12), "lips": (0.5, 1.2), "asymmetry": (-0.5, 0.5), "age": (0.0, 1.0),
    "gaze_x": (-0.05, 0.05), "gaze_y": (-0.02, 0.02), "hair": (0, HAIR_STYLES),
    # Colours: positions in a palette, or brightness.
    "skin": (0.0, 1.0), "hair_colour": (0.0, 1.0), "iris": (0.0, 1.0), "frame": (0.0, 1.0),
    "lipstick": (0.0, 1.0), "clothes": (40.0, 210.0), "clothes_red": (-40.0, 40.0),
    "clothes_blue": (-40.0, 40.0), "wall": (60.0, 215.0), "wall_red": (-35.0, 35.0),
    "wall_blue": (-35.0, 35.0), "wall_edge": (0.0, 2.0),
    # Light and camera: factors, a radius in pixels of 48 (none below 0), grey levels.
    "light": (0.8, 1.2), "light_x": (-0.3, 0.3), "light_y": (-0.15, 0.25),
    "warmth": (-0.07, 0.07), "tint": (-0.03, 0.03), "contrast": (0.75, 1.1),
    "blur": (-0.6, 0.6), "grain": (2.0, 14.0),
}  # fmt: skip
_LOWEST, _HIGHEST = np.array(list(_LOOKS.values())).T
# How often a face has each of these.
_CHANCES = {"bald": 0.08, "beard": 0.15, "glasses": 0.25}
_NUMBERS = (*_LOOKS, *_CHANCES, *_ACTIONS)


class DemoFaces(LabeledFaces):
    """Draw faces that show an expression by brows, eyes and mouth.

    Pose, light, colours, size, person, glasses and hair differ between faces. A face also mixes in
    a second expression, up to the share ``ambiguity`` and mostly much less. All classes are equally
    frequent. Sample ``i`` of a split and seed is always the same face, for any number of samples,
    order or process. Each access draws the face again, and nothing is cached.

    :meth:`landmarks` has the 68 points of iBUG: 0 to 16 the jaw from left to right in the image, 17
    to 26 the brows, 27 to 35 the nose, 36 to 47 the eyes, 48 to 59 the outer and 60 to 67 the inner
    edge of the lips. They are exact to half a pixel. Some points of a turned head can be just
    outside the image.

    Args:
        num_samples: number of faces.
        split: ``"train"``, ``"test"`` or ``"validation"``. Splits share no face.
        size: width and height of the images in pixels, at least 16.
        seed: seed of the faces.
        ambiguity: largest share of a second expression, in [0, 1]. Above 0.5 some faces show the
            other expression more than their own.
        voters: number of simulated people who label each face, for ``votes``. They choose the
            second expression as often as its share. 0: ``votes`` is ``None``.

    Raises:
        ValueError: an argument is outside its range.

    >>> faces = DemoFaces(num_samples=14, split="test")
    >>> faces[3]["image"].shape, faces.classes[faces[3]["target"]], faces.ids[3]
    (torch.Size([3, 48, 48]), 'surprise', 'demo-test-0-000003')
    >>> faces.landmarks(3).shape
    torch.Size([68, 2])
    """

    def __init__(
        self,
        num_samples: int = 4000,
        *,
        split: str = "train",
        size: int = 48,
        seed: int = 0,
        ambiguity: float = 0.35,
        voters: int = 0,
    ) -> None:
        check_choice("split", split, _SPLITS)
        num_samples = check_whole_number("num_samples", num_samples, 1)
        size = check_whole_number("size", size, 16)
        seed = check_seed(seed)
        check_range("ambiguity", ambiguity, 0.0, 1.0)
        voters = check_whole_number("voters", voters, 0)
        self._split, self._size, self._seed, self.ambiguity = split, size, seed, ambiguity
        # Each group of seven faces shows each expression once, in random order.
        sevens = range(-(-num_samples // len(EXPRESSIONS)))
        order = [
            self._random("order", seven).random(len(EXPRESSIONS)).argsort() for seven in sevens
        ]
        self._expressions = np.concatenate(order)[:num_samples]
        super().__init__(
            classes=EXPRESSIONS,
            ids=[f"demo-{split}-{seed}-{row:06d}" for row in range(num_samples)],
            targets=self._expressions,
            votes=self._votes(voters) if voters else None,
        )

    def load_image(self, row: int) -> Tensor:
        face, random = self._face(row)
        image = paint(outline(face), face, colours(face), self._size)
        return torch.from_numpy(photograph(image, face, random))

    def load_landmarks(self, row: int) -> Tensor:
        face, _ = self._face(row)
        points = place(outline(face), face, self._size)[LANDMARKS]
        return torch.from_numpy(points.astype(np.float32))

    def _random(self, use: str, number: int) -> np.random.Generator:
        """Return an independent generator for each use and number."""
        key = (_SPLITS.index(self._split), ("order", "face", "votes").index(use), number)
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))

    def _face(self, row: int) -> tuple[dict[str, float], np.random.Generator]:
        """Return all numbers that describe a face, and the generator for the camera's grain."""
        random, looks, chances, jitter, (second, much, strength) = self._drawn(row)
        looks = _LOWEST + looks * (_HIGHEST - _LOWEST)
        own, other, share = self._shown(row, second, much)
        actions = (1 - share) * _PROTOTYPES[own] + share * _PROTOTYPES[other]
        actions = (0.6 + 0.5 * strength) * actions + 0.3 * (jitter - 0.5)
        actions = np.minimum(np.maximum(actions, _LEAST_ACTION), 1.2)
        worn = chances < tuple(_CHANCES.values())
        numbers = np.concatenate([looks, worn, actions]).tolist()
        return dict(zip(_NUMBERS, numbers, strict=True)), random

    def _drawn(self, row: int) -> tuple[np.random.Generator, Array, Array, Array, list[float]]:
        """Return the generator of a face, and the random numbers in [0, 1) drawn from it."""
        random = self._random("face", row)
        looks, chances = random.random(len(_LOOKS)), random.random(len(_CHANCES))
        return random, looks, chances, random.random(len(_ACTIONS)), random.random(3).tolist()

    def _shown(self, row: int, second: float, much: float) -> tuple[int, int, float]:
        """Return the expression of a face, the second one that it mixes in, and its share."""
        own = int(self._expressions[row])
        other = (own + 1 + int(second * (len(EXPRESSIONS) - 1))) % len(EXPRESSIONS)
        return own, other, self.ambiguity * much**2

    def _votes(self, voters: int) -> NDArray[np.int64]:
        votes = np.zeros((len(self._expressions), len(EXPRESSIONS)), dtype=np.int64)
        for row, counts in enumerate(votes):
            second, much, _ = self._drawn(row)[-1]
            own, other, share = self._shown(row, second, much)
            counts[other] = (self._random("votes", row).random(voters) < share).sum()
            counts[own] = voters - counts[other]
        return votes
