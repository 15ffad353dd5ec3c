"""Check names, labels and predictions that users bring, and return them on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._checks import check_class_index, check_distribution, check_finite, check_shapes

#: Probabilities in a file may be rounded to a few digits.
_TOLERANCE = 0.01


def to_tensor(name: str, values: Tensor | ArrayLike) -> Tensor:
    """Return numbers as a new tensor on the CPU, whole numbers as int64."""
    if isinstance(values, Tensor):
        tensor = values.detach().to("cpu", copy=True)
    else:
        try:
            array = np.asarray(values)
        except ValueError:
            # Rows of different lengths.
            array = np.empty(0, dtype=object)
        if array.dtype.kind not in "biuf":
            first = f" of {type(values[0]).__name__}" if isinstance(values, list) and values else ""
            raise TypeError(
                f"{name} must be a torch.Tensor, a numpy array or a list of numbers, got "
                f"{type(values).__name__}{first}"
            )
        native = array.dtype.newbyteorder("=")
        tensor = torch.from_numpy(np.array(array, dtype=native, order="C"))
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return tensor.to(torch.int64) if whole else tensor


def to_labels(
    name: str, values: Tensor | ArrayLike, *, num_classes: int, count: int | None = None
) -> Tensor:
    """Return labels (N) as int64 on the CPU, or raise if they are not ``count`` classes."""
    labels = to_tensor(name, values)
    check_shapes(**{name: (labels, "N" if count is None else str(count))})
    if labels.dtype != torch.int64:
        raise ValueError(f"{name} must hold whole numbers, got {labels.dtype}")
    check_class_index(num_classes, **{name: labels})
    return labels


def to_probabilities(name: str, values: Tensor | ArrayLike) -> Tensor:
    """Return predicted probabilities (N, C) on the CPU, in float32 or float64. Rows are checked."""
    rows = to_tensor(name, values)
    check_shapes(**{name: (rows, "N C")})
    if not rows.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {rows.dtype}")
    if rows.shape[1] < 2:
        raise ValueError(f"{name} must have two classes or more, got {rows.shape[1]}")
    rows = rows if rows.dtype == torch.float64 else rows.float()
    check_finite(**{name: rows})
    check_distribution(_TOLERANCE, **{name: rows})
    return rows


def check_ids(
    ids: Sequence[str], *, name: str = "ids", count: int | None = None, unique: bool = False
) -> list[str]:
    """Return names of samples or classes as a list, or raise if they are not ordered texts.

    A set has no order, and a single text is a sequence of letters. Both would give samples the
    labels of others.
    """
    # An array or a column of a table is fine too.
    ordered: Any = ids
    unordered = isinstance(ordered, (str, bytes, Set, Mapping))
    if unordered or not (hasattr(ordered, "__len__") and hasattr(ordered, "__getitem__")):
        got = repr(ids) if isinstance(ids, str) else type(ids).__name__
        raise TypeError(f"{name} must be a list of names in order, got {got}")
    names = list(ordered)
    strange = next((row for row, one in enumerate(names) if not isinstance(one, str)), None)
    if strange is not None:
        raise TypeError(f"{name} must be texts, got {names[strange]!r} at position {strange}")
    if count is not None and len(names) != count:
        raise ValueError(f"{name} must name each of {count} samples, got {len(names)} names")
    if unique and len(set(names)) != len(names):
        twice, times = Counter(names).most_common(1)[0]
        raise ValueError(f"{name} must have each name once, got {twice!r} {times} times")
    return names


def name_bytes(name: str) -> bytes:
    """Return a file name as bytes: UTF-8, or else the bytes on the disk."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {name!r} cannot be written as text: {error.reason}") from None
