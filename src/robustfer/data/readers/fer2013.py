"""Read FER2013 from its csv file, and its labels for FERPlus's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from robustfer import _shown
from robustfer._checks import check_choice, check_whole_number
from robustfer._tables import Duplicates, NamedOnce, read_table, read_whole_number
from robustfer.data.classes import EXPRESSIONS, NUMBERINGS
from robustfer.data.dataset import LabeledFaces
from robustfer.data.readers.images import decode
from robustfer.data.readers.paths import check_inside

#: robustfer's name of a split -> the name in FER2013 and FERPlus.
USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}

_SIDE = 48
_GREY = {str(value): value for value in range(256)}


class FER2013(LabeledFaces):
    r"""Read the faces of a split of FER2013, 48 x 48 and grey, from ``fer2013.csv``.

    The csv has the columns ``emotion``, ``pixels`` and ``Usage`` in any order. Both ``fer2013.csv``
    and ``icml_face_data.csv`` work. It is read once into memory, 2,304 bytes per face. Its labels
    are often wrong. :class:`robustfer.data.FERPlus` has ten people's labels for each face. ``ids``
    are FERPlus's names, by the row of the file: ``fer0000000.png`` is the first.

    Args:
        table: the csv file.
        split: ``"train"``, ``"validation"`` (the public test) or ``"test"`` (the private test).
        size: side of the square to resize to, in pixels. ``None``: 48.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: an option or a row has another form. The message names file and line.

    Reference:
        Goodfellow et al., Challenges in Representation Learning: A Report on Three Machine Learning
        Contests, ICONIP 2013.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "fer2013.csv")
    ...     _ = path.write_text("emotion,pixels,Usage\n3," + "7 " * 2304 + ",Training\n")
    ...     faces = FER2013(path)
    >>> faces.ids, faces.classes[faces.targets[0]], faces[0]["image"].unique()
    (['fer0000000.png'], 'happiness', tensor([7], dtype=torch.uint8))
    """

    def __init__(
        self,
        table: str | Path,
        split: Literal["train", "validation", "test"] = "train",
        *,
        size: int | None = None,
    ) -> None:
        check_choice("split", split, tuple(USAGES))
        self._size = None if size is None else check_whole_number("size", size, 1)
        table = Path(table).expanduser()
        ids: list[str] = []
        targets: list[int] = []
        pixels = bytearray()
        rows = read_table(table, ["emotion", "pixels", "Usage"])
        bar = tqdm(rows, desc=f"reading {table.name}", disable=None)
        for number, (line, row) in enumerate(bar):
            check_usage(table, line, row["Usage"])
            if row["Usage"] == USAGES[split]:
                ids.append(f"fer{number:07d}.png")
                targets.append(_read_emotion(table, line, row["emotion"]))
                pixels += _read_pixels(table, line, row["pixels"])
        if not ids:
            raise ValueError(f"{table} has no row of Usage {USAGES[split]!r}")
        super().__init__(classes=EXPRESSIONS, ids=ids, targets=targets)
        self._pixels = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, _SIDE, _SIDE)

    def load_image(self, row: int) -> Tensor:
        return decode(Image.fromarray(self._pixels[row]), size=self._size)


def check_usage(path: Path, line: int, usage: str) -> None:
    """Require that a row belongs to a split."""
    if usage not in USAGES.values():
        raise ValueError(
            f"{path}, line {line}: Usage must be one of {', '.join(USAGES.values())}, got "
            f"{_shown.value(usage)}"
        )


def read_fer2013_labels(
    path: Path, rows: Sequence[tuple[str, str]], *, duplicates: Duplicates = "error"
) -> dict[str, int]:
    """Read FER2013's label of each image: name -> position in ``EXPRESSIONS``.

    A csv with columns ``image`` and ``emotion`` is matched by name. The original ``fer2013.csv``
    has no names, so its rows must be those of the complete ``fer2013new.csv``, in the same order.
    ``rows`` has usage and image of each row of that table. The name of an image can be empty.
    """
    named: dict[str, int] = {}
    names = NamedOnce(path, duplicates)
    unnamed: list[tuple[int, str, int]] = []
    for line, row in read_table(path, ["emotion"]):
        emotion = _read_emotion(path, line, row["emotion"])
        if "image" in row:
            image = check_inside(path, line, row["image"])
            if names.is_new(line, image, emotion):
                named[image] = emotion
        elif "Usage" in row:
            unnamed.append((line, row["Usage"], emotion))
        else:
            raise ValueError(
                f"{path}, line 1: the header must name the column image, or Usage as in FER2013's "
                f"csv, got {', '.join(row)}"
            )
    if named:
        return named
    if len(unnamed) != len(rows):
        raise ValueError(
            f"{path} has {len(unnamed)} rows, expected the {len(rows)} of fer2013new.csv; without "
            "image names both files must be complete, or add a column image"
        )
    for (line, usage, emotion), (expected, image) in zip(unnamed, rows, strict=True):
        if usage != expected:
            raise ValueError(
                f"{path}, line {line}: Usage is {usage!r}, expected {expected!r} as in the same "
                "row of fer2013new.csv; use two files that belong together"
            )
        if image:
            named[image] = emotion
    return named


def _read_emotion(path: Path, line: int, text: str) -> int:
    codes = NUMBERINGS["fer2013"]
    return EXPRESSIONS.index(codes[read_whole_number(path, line, "emotion", text, max(codes))])


def _read_pixels(path: Path, line: int, text: str) -> bytes:
    words = text.split()
    try:
        pixels = bytes(map(_GREY.__getitem__, words))
    except KeyError as error:
        raise ValueError(
            f"{path}, line {line}: pixels must be whole numbers from 0 to 255, got "
            f"{_shown.value(error.args[0])}"
        ) from None
    if len(pixels) != _SIDE**2:
        raise ValueError(
            f"{path}, line {line}: pixels must be {_SIDE**2} numbers, {_SIDE} x {_SIDE}, got "
            f"{len(pixels)}"
        )
    return pixels
