"""Provide landmarks from a file, or from the data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustfer import _shown
from robustfer._checks import check_bool, warn_if_normalized
from robustfer._inputs import check_ids, to_tensor
from robustfer._npz import plain_arrays
from robustfer._tables import parse_number, read_table
from robustfer.landmarks.layouts import LandmarkLayout, landmark_layout

_Points: TypeAlias = NDArray[np.float32]


class LandmarkFile:
    r"""Read landmarks from a file, by the name of the image.

    - ``.npz`` with names ``image`` (N), ``landmarks`` (N, K, 2) and optionally ``detected`` (N)
      bool. Nothing is unpickled.
    - ``.csv`` with columns ``image``, ``x0``, ``y0``, ``x1``, ``y1``, ... and optionally
      ``detected`` (1 or 0). The cells of an unknown point are empty.

    Call it once with the ids of all samples. A batch then takes its rows with ``index``.

    Args:
        path: the file.
        layout: number of points, or a layout. ``None``: the number of points in the file.
        allow_missing: treat samples that are not in the file as unknown, instead of an error.

    Shape:
        n ids -> landmarks float32 ``(n, K, 2)`` in pixels of the stored image, NaN where unknown,
        and visible bool ``(n, K)``.

    Raises:
        TypeError: ``allow_missing`` is not a bool.
        FileNotFoundError: the file does not exist.
        ValueError: the file has another form. When called: it has no landmarks for a sample.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "landmarks.csv")
    ...     _ = path.write_text("image,x0,y0,x1,y1,x2,y2,x3,y3,x4,y4\n"
    ...                         "a.png,15,18,32,18,24,27,17,36,,\n")
    ...     provider = LandmarkFile(path)
    >>> landmarks, visible = provider(["a.png"])
    >>> landmarks.shape, visible.tolist()
    (torch.Size([1, 5, 2]), [[True, True, True, True, False]])
    """

    def __init__(
        self,
        path: str | Path,
        *,
        layout: int | LandmarkLayout | None = None,
        allow_missing: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        self.allow_missing = check_bool("allow_missing", allow_missing)
        reader = {".npz": _read_npz, ".csv": _read_csv}.get(self.path.suffix.lower())
        if reader is None:
            raise ValueError(f"path must end in .npz or .csv, got {self.path}")
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist, or is not a file")
        names, points, places = reader(self.path)
        self.layout = _fitting(layout, points.shape[1], str(self.path))
        self._rows: dict[str, int] = {}
        for row, name in enumerate(names):
            first = self._rows.setdefault(name, row)
            if first != row and not np.array_equal(points[row], points[first], equal_nan=True):
                raise ValueError(
                    f"{self.path}, {places[row]}: {name} is named a second time, with other points "
                    f"than in {places[first]}; remove one of them"
                )
        # The last row, at index -1, stands for all names that are not in the file.
        unknown = np.full((1, *points.shape[1:]), np.nan, dtype=np.float32)
        self._landmarks = torch.from_numpy(np.concatenate([points, unknown]))
        warn_if_normalized(self._landmarks, f"landmarks of {self.path}")

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the landmarks of samples, and whether each point is known."""
        ids = check_ids(ids)
        missing = [name for name in ids if name not in self._rows]
        if missing and not self.allow_missing:
            raise ValueError(
                f"{self.path} has no landmarks for {len(missing)} of {len(ids)} samples, the first "
                f"{missing[0]!r}, expected names like {next(iter(self._rows))!r}; pass "
                "allow_missing=True to treat these as unknown"
            )
        rows = [self._rows.get(name, -1) for name in ids]
        known = self._landmarks[torch.tensor(rows, dtype=torch.int64, device="cpu")]
        return known, known.isfinite().all(dim=-1)


class _HasLandmarks(Protocol):
    @property
    def all_ids(self) -> Sequence[str]: ...

    def landmarks(self, row: int) -> Tensor: ...


class DatasetLandmarks:
    """Return the landmarks of a data set that has them, such as ``DemoFaces``.

    Args:
        dataset: has ``all_ids`` and ``landmarks(row)``, which returns the points (K, 2) of a row of
            the whole data set (before any ``subset``).
        layout: number of points, or a layout. ``None``: the number of points of the first sample.

    Raises:
        TypeError: the data set has no landmarks. When called: ids are not a list of names, or
            points are not numbers.
        ValueError: the points do not fit the layout. When called: an id is not in the data set, or
            a sample has another number of points.

    >>> from robustfer.data import DemoFaces
    >>> faces = DemoFaces(14)
    >>> landmarks, visible = DatasetLandmarks(faces)(faces.ids[:2])
    >>> landmarks.shape, bool(visible.all())
    (torch.Size([2, 68, 2]), True)
    """

    def __init__(
        self, dataset: _HasLandmarks, *, layout: int | LandmarkLayout | None = None
    ) -> None:
        for needed in ("all_ids", "landmarks"):
            if not hasattr(dataset, needed):
                raise TypeError(
                    f"dataset must have {needed}, got {type(dataset).__name__}; use a data set "
                    "with landmarks, or LandmarkFile"
                )
        self.dataset = dataset
        self._source = type(dataset).__name__
        self._rows = {name: row for row, name in enumerate(dataset.all_ids)}
        self.layout = _fitting(layout, len(dataset.landmarks(0)), self._source)

    def __call__(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the landmarks of samples, and whether each point is known."""
        ids = check_ids(ids)
        shape = (self.layout.num_points, 2)
        landmarks = torch.full((len(ids), *shape), torch.nan, dtype=torch.float32, device="cpu")
        for row, name in enumerate(ids):
            if name not in self._rows:
                raise ValueError(
                    f"{self._source} has no sample {name!r}, expected names like "
                    f"{next(iter(self._rows))!r}; pass the ids of this data set"
                )
            points = to_tensor(f"landmarks of {name!r}", self.dataset.landmarks(self._rows[name]))
            if points.is_complex() or points.dtype == torch.bool:
                raise TypeError(f"landmarks of {name!r} must be real numbers, got {points.dtype}")
            if tuple(points.shape) != shape:
                raise ValueError(
                    f"landmarks of {name!r} must have shape {shape}, got {tuple(points.shape)}"
                )
            landmarks[row] = points
        warn_if_normalized(landmarks, f"landmarks of {self._source}")
        return landmarks, landmarks.isfinite().all(dim=-1)


def _fitting(wanted: int | LandmarkLayout | None, points: int, source: str) -> LandmarkLayout:
    try:
        found = landmark_layout(points if wanted is None else wanted)
    except ValueError as error:
        raise ValueError(f"{source} has {points} points: {error}") from None
    if found.num_points != points:
        raise ValueError(
            f"{source} has {points} points, expected the {found.num_points} of the layout "
            f"{found.name}; pass another layout="
        )
    return found


def _read_npz(path: Path) -> tuple[list[str], _Points, list[str]]:
    with plain_arrays(path) as file:
        there = file.files
        wanted = {"image", "landmarks", "detected"}.intersection(there)
        arrays = {name: file[name] for name in sorted(wanted)}
    missing = [name for name in ("image", "landmarks") if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} must have the arrays image and landmarks; {' and '.join(missing)} missing, "
            f"it has {', '.join(there) or 'none'}"
        )
    names, points = arrays["image"], arrays["landmarks"]
    count = len(names) if names.ndim == 1 else 0
    pairs = (count, *points.shape[1:2], 2)
    detected = arrays.get("detected", np.ones(count, dtype=np.bool_))
    for name, array, kinds, shape, expected in (
        ("image", names, "U", (count,), "a row of names"),
        ("landmarks", points, "fiu", pairs, f"numbers of shape ({count}, points, 2)"),
        ("detected", detected, "b", (count,), f"bool of shape ({count},)"),
    ):
        if array.dtype.kind not in kinds or array.shape != shape or not count:
            raise ValueError(
                f"{path}: {name} must be {expected}, got {array.dtype} of shape {array.shape}"
            )
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    if bool(np.isinf(points).any()):
        raise ValueError(f"{path}: landmarks must be finite in float32, or NaN if unknown, got inf")
    points[~detected] = np.nan
    return names.tolist(), points, [f"row {row}" for row in range(count)]


def _read_csv(path: Path) -> tuple[list[str], _Points, list[str]]:
    names: list[str] = []
    rows: list[list[float]] = []
    places: list[str] = []
    for line, row in read_table(path, ["image", "x0", "y0"]):
        if not rows:
            columns = _coordinates(path, list(row))
        names.append(row["image"])
        places.append(f"line {line}")
        values = [_read_number(path, line, column, row[column]) for column in columns]
        detected = row.get("detected", "1")
        if detected not in ("0", "1"):
            raise ValueError(f"{path}, line {line}: detected must be 1 or 0, got {detected!r}")
        rows.append(values if detected == "1" else [math.nan] * len(columns))
    if not rows:
        raise ValueError(f"{path} has no row, expected one per image")
    return names, np.array(rows, dtype=np.float32).reshape(len(rows), -1, 2), places


def _coordinates(path: Path, header: Sequence[str]) -> list[str]:
    found = {name for name in header if name[:1] in ("x", "y") and name[1:].isdecimal()}
    expected = [f"{axis}{point}" for point in range((len(found) + 1) // 2) for axis in "xy"]
    missing = [name for name in expected if name not in found]
    if missing:
        raise ValueError(
            f"{path}, line 1: the header has no column {missing[0]}, but later points; add it"
        )
    return expected


def _read_number(path: Path, line: int, column: str, text: str) -> float:
    if text.lower() in ("", "nan"):
        return math.nan
    number = parse_number(text)
    if number is None:
        raise ValueError(
            f"{path}, line {line}: {column} must be a number or empty, got {_shown.value(text)}"
        )
    return number
