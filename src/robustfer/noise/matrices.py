"""Which class is taken for which: matrices for label noise, named or measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robustfer._checks import (
    check_class_index,
    check_finite,
    check_int64,
    check_shapes,
    check_within,
)
from robustfer.data.classes import class_name, class_order

#: The confusions of LA-Net's protocol for class-dependent noise.
LANET_CONFUSIONS: Mapping[str, str] = MappingProxyType(
    {
        "anger": "disgust",
        "disgust": "anger",
        "fear": "surprise",
        "happiness": "neutral",
        "sadness": "neutral",
        "surprise": "anger",
        "neutral": "sadness",
    }
)


def noise_matrix(
    confusions: Mapping[str, str | Mapping[str, float]], classes: str | Sequence[str]
) -> Tensor:
    """Return the matrix of named confusions, for :func:`robustfer.noise.class_noise`.

    Args:
        confusions: class -> the class it is taken for, or several with their shares; what is left
            of a share keeps its class, and so do classes that are not named.
        classes: the order of rows and columns, names or a key of
            :data:`robustfer.data.NUMBERINGS`.

    Shape:
        float64 (C, C), rows that sum to 1: a row for the true class, a column for the given one.

    Raises:
        ValueError: a name that is none of the classes, twice, or shares that are none.

    >>> noise_matrix({"happy": "neutral", "fear": {"surprise": 0.7, "neutral": 0.2}},
    ...              ["happiness", "fear", "surprise", "neutral"])
    tensor([[0.0000, 0.0000, 0.0000, 1.0000],
            [0.0000, 0.1000, 0.7000, 0.2000],
            [0.0000, 0.0000, 1.0000, 0.0000],
            [0.0000, 0.0000, 0.0000, 1.0000]], dtype=torch.float64)
    """
    order = class_order(classes)
    matrix = torch.eye(len(order), dtype=torch.float64, device="cpu")
    named: set[str] = set()
    for true, taken_for in confusions.items():
        row = _place(true, order)
        if order[row] in named:
            raise ValueError(f"confusions must name each class once, got {order[row]!r} twice")
        named.add(order[row])
        shares = {taken_for: 1.0} if isinstance(taken_for, str) else taken_for
        total = sum(shares.values())
        if not (all(share >= 0 for share in shares.values()) and total <= 1 + 1e-9):
            raise ValueError(
                f"shares of {true!r} must be positive and no more than 1, got {shares}"
            )
        matrix[row, row] = max(0.0, 1 - total)
        for name, share in shares.items():
            matrix[row, _place(name, order)] += share
    return matrix


def crowd_counts(votes: Tensor, *, true: Tensor | None = None) -> Tensor:
    """Count what single people saw in faces of each class: the noise of one annotator's labels.

    Args:
        votes: number of votes for each class.
        true: the class of each face; default: the one with more than half of its votes, faces
            without one being left out.

    Shape:
        ``votes`` (N, C), ``true`` int64 (N) -> int64 (C, C), a row for each class of face.

    Raises:
        ValueError: shapes that do not fit, votes that are not whole numbers from 0 on, or a value
            that is no class.

    >>> crowd_counts(torch.tensor([[8, 2, 0], [1, 9, 0], [5, 5, 0]]))
    tensor([[8, 2, 0],
            [1, 9, 0],
            [0, 0, 0]])
    """
    num_classes = check_shapes(votes=(votes, "N C"))["C"]
    # Shares of votes would be counted as none.
    if votes.is_floating_point() or votes.dtype == torch.bool or bool((votes < 0).any()):
        raise ValueError(
            f"votes must be whole numbers from 0 on, got {votes.dtype}, the least {votes.min()}"
        )
    votes = votes.to(torch.int64)
    if true is None:
        most, true = votes.max(dim=1)
        decided = 2 * most > votes.sum(dim=1)
        votes, true = votes[decided], true[decided]
    else:
        check_shapes(votes=(votes, "N C"), true=(true, "N"))
        check_int64(true=true)
        check_class_index(num_classes, true=true)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=votes.device)
    return counts.index_add(0, true, votes)


def transition_matrix(counts: Tensor) -> Tensor:
    r"""Return the probability of each given class for each true one, from counts.

    .. math:: T_{ck} = \frac{n_{ck}}{\sum_j n_{cj}}

    A class without a sample keeps its label: :math:`T_{cc} = 1`.

    Args:
        counts: of :func:`robustfer.metrics.confusion_matrix`, with the given labels as the
            predicted ones, or of :func:`crowd_counts`.

    Shape:
        ``counts`` (C, C) -> float64 (C, C), on the CPU: not every device has float64.

    Raises:
        ValueError: another shape, or counts below 0 or not finite.

    >>> transition_matrix(torch.tensor([[8, 2], [0, 0]]))
    tensor([[0.8000, 0.2000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    num_classes = check_shapes(counts=(counts, "C C"))["C"]
    check_finite(counts=counts)
    check_within(0, math.inf, counts=counts)
    counts = counts.cpu()
    sums = counts.sum(dim=1, keepdim=True).double()
    identity = torch.eye(num_classes, dtype=torch.float64, device="cpu")
    return (counts / sums.clamp(min=1)).where(sums > 0, identity)


def without_diagonal(matrix: Tensor) -> Tensor:
    r"""Return which wrong class is given where a wrong one is, to be used at any rate.

    .. math:: T'_{ck} = \frac{T_{ck}}{1 - T_{cc}} \quad (k \neq c)

    A class that is never taken for another keeps its label.

    Shape:
        ``matrix`` (C, C) -> float64 (C, C), on the CPU

    Raises:
        ValueError: another shape, or shares below 0 or not finite.

    >>> without_diagonal(torch.tensor([[0.6, 0.3, 0.1], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]))
    tensor([[0.0000, 0.7500, 0.2500],
            [0.0000, 1.0000, 0.0000],
            [0.0000, 1.0000, 0.0000]], dtype=torch.float64)
    """
    num_classes = check_shapes(matrix=(matrix, "C C"))["C"]
    check_finite(matrix=matrix)
    check_within(0, math.inf, matrix=matrix)
    identity = torch.eye(num_classes, dtype=torch.float64, device="cpu")
    wrong = matrix.cpu().double() * (1 - identity)
    sums = wrong.sum(dim=1, keepdim=True)
    return (wrong / sums).where(sums > 0, identity)


def _place(name: str, order: Sequence[str]) -> int:
    if class_name(name) not in order:
        raise ValueError(f"{name!r} is none of the classes {', '.join(order)}")
    return order.index(class_name(name))
