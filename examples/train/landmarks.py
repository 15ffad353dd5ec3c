"""Find the landmarks of a data set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from examples.train.options import Refused
from robustfer.data import LabeledFaces
from robustfer.data.readers.images import FileFaces
from robustfer.landmarks import (
    DatasetLandmarks,
    LandmarkFile,
    LandmarkLayout,
    convert_landmarks,
    landmark_layout,
    resize_landmarks,
)


def find_landmarks(
    source: str,
    faces: LabeledFaces,
    *,
    size: tuple[int, int],
    found_at: int | None,
    points: int | None,
) -> tuple[Tensor, LandmarkLayout]:
    """Return the landmarks (N, K, 2) in pixels of the images, NaN where unknown.

    Args:
        source: ``dataset``, or ``file:PATH``.
        faces: the data set.
        size: height and width of its images.
        found_at: side of the images that the landmarks were found in. ``None``: that of the files
            of the data set, or ``size`` if it is not read from image files.
        points: number of points to convert to. ``None``: no conversion.

    Raises:
        Refused: the source is unknown.
    """
    kind, _, path = source.partition(":")
    if kind == "file" and path:
        provider: Any = LandmarkFile(path)
        landmarks, visible = _from_file(provider, faces, moved=found_at is None)
    elif source == "dataset":
        provider = DatasetLandmarks(faces)
        landmarks, visible = provider(faces.ids)
    else:
        raise Refused(f"--landmarks must be dataset or file:PATH, got {source}")
    layout = provider.layout if points is None else landmark_layout(points)
    if layout != provider.layout:
        landmarks, visible = convert_landmarks(
            landmarks, visible, source=provider.layout, target=layout
        )
    if found_at:
        landmarks = resize_landmarks(landmarks, from_size=found_at, to_size=size)
    landmarks = landmarks.to(torch.get_default_dtype())
    return landmarks.masked_fill(~visible[..., None], torch.nan), layout


def _from_file(
    provider: LandmarkFile, faces: LabeledFaces, *, moved: bool
) -> tuple[Tensor, Tensor]:
    """Return the landmarks of a file, moved as the data set crops and resizes its images."""
    if not isinstance(faces, FileFaces):
        return provider(faces.ids)
    row_of = {name: row for row, name in enumerate(faces.all_ids)}
    rows = [row_of[name] for name in faces.ids]
    try:
        landmarks, visible = provider(faces.ids)
    except ValueError:
        # The ids of RAF-DB's aligned images are the names of the original ones.
        names = [faces.file_names[row] for row in rows]
        if names == list(faces.ids):
            raise
        landmarks, visible = provider(names)
    if moved:
        placed = [faces.place(row, own) for row, own in zip(rows, landmarks, strict=True)]
        landmarks = torch.stack(placed)
    return landmarks, visible
