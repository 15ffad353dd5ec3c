"""Read the predictions for a data set from an npz, csv or safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robustfer import _shown
from robustfer._files import without_quote
from robustfer._inputs import check_ids, to_probabilities
from robustfer._npz import plain_arrays
from robustfer._tables import parse_number, read_table
from robustfer.data.classes import class_names

_Array = TypeVar("_Array")

# Final weights that predict more of the labels than this have begun to memorise them. The mean over
# all visits still ranks wrong labels well then, see docs/label_errors.md.
_MEMORISED = 0.8
_ALL = "mean over all visits"


class Predictions(NamedTuple):
    """Hold the predictions of a file.

    Attributes:
        probabilities: ``(N, C)``.
        classes: names of the classes; ``None`` if the file has none.
        ids: names of the samples; ``None`` if the file has none.
        given: the labels of the training, ``(N)``; ``None`` if the file has none.
        source: which predictions of a training these are; ``None`` for any other file.
    """

    probabilities: Tensor
    classes: tuple[str, ...] | None
    ids: list[str] | None
    given: Tensor | None = None
    source: str | None = None

    def aligned(self, path: str | Path, ids: Sequence[str], names: Sequence[str]) -> Predictions:
        """Return the predictions in the order of the samples and classes of a data set.

        Args:
            path: the file, for errors.
            ids: names of the samples.
            names: names of the classes.
        """
        rows, given = self.probabilities, self.given
        if self.classes is not None:
            own, wanted = class_names(self.classes), class_names(names)
            if len(own) != len(wanted) or set(own) != set(wanted):
                raise ValueError(
                    f"{path} must have one column for each of {', '.join(names)}, got "
                    f"{', '.join(self.classes)}"
                )
            order = torch.tensor([own.index(name) for name in wanted], device="cpu")
            rows = rows[:, order]
            given = None if given is None else order.argsort()[given]
        if rows.shape[1] != len(names):
            raise ValueError(
                f"{path} must have the {len(names)} classes of the data set, got {rows.shape[1]}"
            )
        if self.ids is not None:
            place = {name: row for row, name in enumerate(self.ids)}
            lacking = next((name for name in ids if name not in place), None)
            if lacking is not None:
                raise ValueError(
                    f"{path} must have a prediction for each sample, but has none for "
                    f"{lacking!r}, only for names like {self.ids[0]!r}; predict them all, and name "
                    "them as the data set does"
                )
            places = torch.tensor([place[name] for name in ids], device="cpu")
            rows, given = rows[places], None if given is None else given[places]
        if len(rows) != len(ids):
            raise ValueError(
                f"{path} must have a row for each of {len(ids)} samples, got {len(rows)}; predict "
                "the same split, in its order"
            )
        return self._replace(
            probabilities=rows,
            given=given,
            classes=None if self.classes is None else tuple(names),
            ids=None if self.ids is None else list(ids),
        )


def read_probabilities(path: str | Path) -> Predictions:
    r"""Read predicted probabilities for a data set. No code from the file runs.

    - ``.csv``: a header with the names of the classes, and a row per sample. A column ``id`` can
      name the samples. So can the column ``image`` of a table with the columns ``image`` and
      ``class``, as the training program's ``predict`` writes it. The column ``class`` is ignored.
    - ``.npz``: an array ``probabilities``, or only one array. It can have text arrays ``classes``
      and ``ids``.
    - ``.safetensors``: a tensor ``probabilities``, or only one tensor. Or the ``state_dict`` of a
      :class:`robustfer.state.TrainingDynamics`: this uses its mean over all visits. The metadata
      can have ``names``, JSON with the lists ``classes`` and ``ids``.
    - a folder: its file ``dynamics.safetensors``. If it has a ``final.safetensors`` too, with the
      predictions of the final weights, this uses the mean of both. It ignores final weights that
      predict over 80 % of the labels, because they have begun to memorise them.

    Args:
        path: the file, or the folder of a run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, is damaged, has no probabilities, or has different
            ones for one sample. The message names the file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "predicted.csv")
    ...     _ = path.write_text("id,sad,glad\na.png,0.25,0.75")
    ...     read_probabilities(path)
    Predictions(probabilities=tensor([[0.2500, 0.7500]], dtype=torch.float64), classes=('sad', 'glad'), ids=['a.png'], given=None, source=None)
    """  # noqa: E501 - the example is one line
    path = Path(path).expanduser()
    folder = path if path.is_dir() else None
    if folder is not None:
        path = folder / "dynamics.safetensors"
    if folder is not None and not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {path.name}; give the folder of one finished run, such as seed-0 of "
            "several seeds, which kept its record"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is not a file")
    readers = {".csv": _read_csv, ".npz": _read_npz, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"path must end in {', '.join(readers)}, got {path}; save the probabilities as one of "
            "these"
        )
    found = reader(path)
    if folder is not None and (folder / "final.safetensors").is_file():
        found = _with_final(found, read_probabilities(folder / "final.safetensors"), folder)
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
    _check_repeated(path, found.ids or [], rows)
    return found._replace(probabilities=rows)


def _check_repeated(path: Path, ids: Sequence[str], rows: Tensor) -> None:
    """Refuse two different rows of one sample."""
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        other = first.setdefault(name, row)
        if other != row and not torch.equal(rows[other], rows[row]):
            raise ValueError(
                f"{path}: ids must name each sample once, but rows {other} and {row}, counted from "
                f"0, are different predictions for {_shown.value(name)}; keep one, or their mean"
            )


def _read_csv(path: Path) -> Predictions:
    rows: list[list[float]] = []
    ids: list[str] = []
    classes: tuple[str, ...] = ()
    for line, row in read_table(path, ()):
        if {"audit", "part", "label"} <= row.keys():
            raise ValueError(
                f"{path} holds decisions of a review, not probabilities; apply them with "
                f"robustfer audit apply {path}"
            )
        if {"image", "class"} <= row.keys() and "id" not in row:
            # The training program's predict writes such a table.
            ids.append(without_quote(row.pop("image")))
            del row["class"]
        if "id" in row:
            ids.append(row.pop("id"))
        classes = tuple(row)
        numbers = []
        for name, text in row.items():
            number = parse_number(text)
            if number is None:
                raise ValueError(
                    f"{path}, line {line}: {name} must be a probability, got {_shown.value(text)}"
                )
            numbers.append(number)
        rows.append(numbers)
    if not rows:
        raise ValueError(f"{path} must have a row per sample after the header, got none")
    return Predictions(torch.tensor(rows, dtype=torch.float64, device="cpu"), classes, ids or None)


def _read_npz(path: Path) -> Predictions:
    with plain_arrays(path) as file:
        arrays = {name: file[name] for name in file.files}
    classes, ids = (_texts(path, arrays, name) for name in ("classes", "ids"))
    values = _only(path, arrays)
    if values.dtype.kind != "f":
        raise ValueError(
            f"{path}: probabilities must have a floating-point dtype, got {values.dtype}"
        )
    return Predictions(
        torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)),
        None if classes is None else tuple(classes),
        ids,
    )


def _read_safetensors(path: Path) -> Predictions:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file: {error}") from error
    names, ids = _names_in(metadata, path)
    if {"mean", "early_mean", "visits"} <= tensors.keys():
        given, unseen = tensors.get("label_given"), int((tensors["visits"] == 0).sum())
        given = None if given is None else given.long()
        source = f"{_ALL} ({unseen} samples had none)" if unseen else _ALL
        return Predictions(_normalized(tensors["mean"]), names, ids, given, source)
    return Predictions(_only(path, tensors), names, ids)


def _names_in(
    metadata: Mapping[str, str], path: Path
) -> tuple[tuple[str, ...] | None, list[str] | None]:
    """Return the names of classes and samples in the metadata of a safetensors file."""
    if "names" not in metadata:
        return None, None
    try:
        found = json.loads(metadata["names"])
        return tuple(check_ids(found["classes"])), check_ids(found["ids"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: names in the metadata must be JSON with the lists 'classes' and 'ids': "
            f"{error}"
        ) from error


def _with_final(found: Predictions, final: Predictions, folder: Path) -> Predictions:
    """Return the mean with the final weights' predictions, unless those have begun to memorise."""
    rows, others, given = found.probabilities, final.probabilities.double(), found.given
    if rows.shape != others.shape:
        raise ValueError(
            f"{folder / 'final.safetensors'} must have probabilities of shape "
            f"{tuple(rows.shape)}, as dynamics.safetensors has, got {tuple(others.shape)}"
        )
    if given is not None and _fitted(others, given) > _MEMORISED:
        return found
    return found._replace(
        probabilities=(rows + others) / 2, source=f"{found.source}, and the final weights"
    )


def _normalized(rows: Tensor) -> Tensor:
    # The sum is zero for a sample that was never visited.
    total = rows.double().sum(dim=1, keepdim=True)
    return (rows / total).where(total > 0, 1 / rows.shape[1])


def _fitted(rows: Tensor, given: Tensor) -> float:
    return float((rows.argmax(dim=1) == given).double().mean())


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
        raise ValueError(f"{path} must have 'probabilities', or only one array, got {there}")
    return next(iter(arrays.values()))
