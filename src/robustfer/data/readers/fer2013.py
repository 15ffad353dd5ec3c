"""FER2013's own labels, often wrong, found for FERPlus's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from robustfer._tables import (
    Duplicates,
    NamedOnce,
    check_inside,
    read_table,
    read_whole_number,
)
from robustfer.data.classes import EXPRESSIONS, numbering


class NamedFace(NamedTuple):
    """A row of FERPlus's table as far as FER2013's labels need it."""

    usage: str
    image: str


def read_fer2013_labels(
    path: Path, rows: Sequence[NamedFace], *, duplicates: Duplicates = "error"
) -> dict[str, int]:
    r"""Read FER2013's own label of each image: name -> position in ``EXPRESSIONS``.

    A csv with columns ``image`` and ``emotion`` is matched by name. The original ``fer2013.csv``
    (``emotion``, ``pixels``, ``Usage``) has no names: its rows are those of the complete
    ``fer2013new.csv``, in the same order, so both must have as many rows and the same ``Usage`` in
    each.

    Args:
        path: either kind of csv.
        rows: the rows of FERPlus's table, with an empty image name where FERPlus has none.
        duplicates: ``"drop"`` accepts an image named again with the same emotion.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an emotion is none of 0 to 6, an image is named twice, or
            the rows do not match. The message names file and line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "fer2013.csv")
    ...     _ = path.write_text("emotion,pixels,Usage\n0,1 2 3,Training\n3,4 5 6,PublicTest")
    ...     rows = [NamedFace("Training", "a.png"), NamedFace("PublicTest", "b.png")]
    ...     read_fer2013_labels(path, rows)
    {'a.png': 5, 'b.png': 3}
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
                f"{path}, line 1: the header must name the column image, or Usage as FER2013's own "
                f"csv has it; it names {', '.join(row)}"
            )
    return named or _match_by_row(path, unnamed, rows)


def _match_by_row(
    path: Path, labels: Sequence[tuple[int, str, int]], rows: Sequence[NamedFace]
) -> dict[str, int]:
    if len(labels) != len(rows):
        raise ValueError(
            f"{path} has {len(labels)} rows, but fer2013new.csv has {len(rows)}; a csv without "
            "image names can only be matched to the complete fer2013new.csv, row by row"
        )
    matched: dict[str, int] = {}
    for (line, usage, emotion), face in zip(labels, rows, strict=True):
        if usage != face.usage:
            raise ValueError(
                f"{path}, line {line}: Usage is {usage!r}, but {face.usage!r} in the same row of "
                "fer2013new.csv; the two files do not belong together"
            )
        if face.image:
            matched[face.image] = emotion
    return matched


def _read_emotion(path: Path, line: int, text: str) -> int:
    code = read_whole_number(path, line, "emotion", text)
    codes = numbering("fer2013")
    if code not in codes:
        raise ValueError(f"{path}, line {line}: emotion must lie in 0 to 6, got {code}")
    return EXPRESSIONS.index(codes[code])
