"""Predictions from files: npz, csv and safetensors."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from robustfer._inputs import to_probabilities
from robustfer._tables import parse_number, read_table, shortened
from robustfer.data.classes import class_name

_Array = TypeVar("_Array")


class Predictions(NamedTuple):
    """Predictions as a file has them.

    Attributes:
        probabilities: ``(N, C)``.
        classes: names of the classes; ``None`` if the file has none.
        ids: names of the samples; ``None`` if the file has none.
        given: the labels that were trained on, ``(N)``; ``None`` if the file has none.
    """

    probabilities: Tensor
    classes: tuple[str, ...] | None
    ids: list[str] | None
    given: Tensor | None = None

    def aligned(self, path: str | Path, ids: Sequence[str], names: Sequence[str]) -> Tensor:
        """Return the probabilities in the order of the samples and classes of a data set.

        Args:
            path: of the file, for errors.
            ids: names of the samples.
            names: names of the classes.
        """
        rows = self.probabilities
        if self.classes is not None:
            own = [class_name(name) for name in self.classes]
            if len(own) != len(names) or any(own.count(name) != 1 for name in names):
                raise ValueError(
                    f"{path} must have a column for each of {', '.join(names)}, got "
                    f"{', '.join(self.classes)}"
                )
            rows = rows[:, [own.index(name) for name in names]]
        if rows.shape[1] != len(names):
            raise ValueError(f"{path} has {rows.shape[1]} classes, the data set has {len(names)}")
        if self.ids is not None:
            place = {name: row for row, name in enumerate(self.ids)}
            lacking = next((name for name in ids if name not in place), None)
            if lacking is not None:
                raise ValueError(f"{path} has no prediction of {lacking!r}")
            return rows[torch.tensor([place[name] for name in ids], device="cpu")]
        if len(rows) != len(ids):
            raise ValueError(
                f"{path} has {len(rows)} rows, the data set has {len(ids)} samples; predict the "
                "split that is read, in its order"
            )
        return rows


def read_probabilities(path: str | Path) -> Predictions:
    r"""Read predicted probabilities of a data set from a file. Nothing in it is run.

    - ``.csv``: a header with the names of the classes, a row per sample; a column ``id`` names the
      samples.
    - ``.npz``: an array ``probabilities``, or the only array; text arrays ``classes`` and ``ids``
      if there are some.
    - ``.safetensors``: a tensor ``probabilities``, or the only tensor; or the ``state_dict`` of a
      :class:`robustfer.state.TrainingDynamics`, whose mean over all visits is taken.
    - a folder: the file ``dynamics.safetensors`` in it.

    Args:
        path: of the file, or the folder of a run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, a damaged one, or no probabilities in it. The message
            names the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "predicted.csv")
    ...     _ = path.write_text("id,sad,glad\na.png,0.25,0.75")
    ...     read_probabilities(path)
    Predictions(probabilities=tensor([[0.2500, 0.7500]], dtype=torch.float64), classes=('sad', 'glad'), ids=['a.png'], given=None)
    """  # noqa: E501 - the example is one line
    path = Path(path)
    if path.is_dir():
        path = path / "dynamics.safetensors"
    readers = {".csv": _read_csv, ".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: the name must end with {', '.join(readers)}, got {path.suffix!r}; write the "
            "probabilities as one of these"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is not a file")
    found = reader(path)
    try:
        rows = to_probabilities("probabilities", found.probabilities)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for name, names, size in (
        ("classes", found.classes, rows.shape[1]),
        ("ids", found.ids, len(rows)),
    ):
        if names is not None and len(names) != size:
            raise ValueError(f"{path}: {name} must hold {size} names, got {len(names)}")
    return found._replace(probabilities=rows)


def _read_csv(path: Path) -> Predictions:
    rows: list[list[float]] = []
    ids: list[str] = []
    classes: tuple[str, ...] = ()
    for line, row in read_table(path, ()):
        if "id" in row:
            ids.append(row.pop("id"))
        classes = tuple(row)
        numbers = []
        for name, text in row.items():
            number = parse_number(text)
            if number is None:
                raise ValueError(
                    f"{path}, line {line}: {name} must be a probability, got {shortened(text)}"
                )
            numbers.append(number)
        rows.append(numbers)
    if not rows:
        raise ValueError(f"{path}: no row of probabilities follows the header")
    return Predictions(torch.tensor(rows, dtype=torch.float64, device="cpu"), classes, ids or None)


def _read_npz(path: Path) -> Predictions:
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is not an npz file of plain arrays: {error}; write it with numpy.savez"
        ) from error
    classes, ids = (_texts(path, arrays, name) for name in ("classes", "ids"))
    values = _only(path, arrays)
    if values.dtype.kind != "f":
        raise ValueError(f"{path}: probabilities must be floating point, got {values.dtype}")
    return Predictions(
        torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)),
        None if classes is None else tuple(classes),
        ids,
    )


def _read_safetensors(path: Path) -> Predictions:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if {"mean", "early_mean", "visits"} <= tensors.keys():
        rows = tensors["mean"].double()
        total = rows.sum(dim=1, keepdim=True)
        rows = (rows / total).where(total > 0, 1 / rows.shape[1])
        return Predictions(rows, None, None, tensors.get("label_given"))
    return Predictions(_only(path, tensors), None, None)


def _texts(path: Path, arrays: dict[str, npt.NDArray[Any]], name: str) -> list[str] | None:
    if name not in arrays:
        return None
    values = arrays.pop(name)
    if values.ndim != 1 or values.dtype.kind != "U":
        raise ValueError(
            f"{path}: {name} must be texts of shape (N), got {values.dtype} of shape {values.shape}"
        )
    return [str(value) for value in values]


def _only(path: Path, arrays: dict[str, _Array]) -> _Array:
    if "probabilities" in arrays:
        return arrays["probabilities"]
    if len(arrays) != 1:
        there = ", ".join(map(repr, arrays)) or "nothing"
        raise ValueError(f"{path} must hold 'probabilities', or only one array, got {there}")
    return next(iter(arrays.values()))
