"""Predictions of a whole data set as users have them, and the labels that belong to them."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._arrays import to_tensor
from robustfer._checks import check_class_index, check_finite, check_shapes

#: Room for probabilities that were rounded to a few digits in a file.
_TOLERANCE = 0.01


def to_labels(
    name: str, values: Tensor | ArrayLike, *, num_classes: int, count: int | None = None
) -> Tensor:
    """Return labels (N) as int64 on the CPU, if each is a class and there are ``count`` of them."""
    labels = to_tensor(name, values)
    check_shapes(**{name: (labels, "N" if count is None else str(count))})
    if labels.dtype != torch.int64:
        raise ValueError(f"{name} must hold whole numbers, got {labels.dtype}")
    check_class_index(num_classes, **{name: labels})
    return labels


def to_probabilities(name: str, values: Tensor | ArrayLike) -> Tensor:
    """Return predicted probabilities (N, C) on the CPU, in float32 or float64, if each row is some.

    >>> to_probabilities("probabilities", [[2.0, -1.0]])
    Traceback (most recent call last):
    ...
    ValueError: rows of probabilities must be at least 0 and sum to 1, got -1 as the least and 1 as the sum of row 0; of logits take the softmax first
    """  # noqa: E501 - the message is one line
    rows = to_tensor(name, values)
    check_shapes(**{name: (rows, "N C")})
    if not rows.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {rows.dtype}")
    if rows.shape[1] < 2:
        raise ValueError(f"{name} must have two classes or more, got {rows.shape[1]}")
    rows = rows if rows.dtype == torch.float64 else rows.float()
    check_finite(**{name: rows})
    sums, least = rows.sum(dim=1), rows.amin(dim=1)
    wrong = (((sums - 1).abs() > _TOLERANCE) | (least < 0)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"rows of {name} must be at least 0 and sum to 1, got {float(least[row]):.6g} as the "
            f"least and {float(sums[row]):.6g} as the sum of row {row}; of logits take the softmax "
            "first"
        )
    return rows
