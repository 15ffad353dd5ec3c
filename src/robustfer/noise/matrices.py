"""Make matrices of label noise, from names of classes or from counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

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


#: Class -> the class it is confused with, or several with their shares.
NamedConfusions = Mapping[str, str | Mapping[str, float]]


def noise_matrix(confusions: NamedConfusions, classes: Sequence[str]) -> Tensor:
    """Return the matrix of named confusions, for :func:`robustfer.noise.with_class_noise`.

    Args:
        confusions: class -> the class it is confused with, or several with their shares. The
            remaining share keeps its class, and so do classes that are not named.
        classes: the order of rows and columns.

    Shape:
        float64 (C, C), a row per true class, a column per given class. Rows sum to 1.

    Raises:
        ValueError: a name is not one of the classes or occurs twice, or shares are not valid.

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
        if not isinstance(shares, Mapping) or not all(map(_is_number, shares.values())):
            raise ValueError(
                f"confusions of {true!r} must be a class, or classes with shares such as "
                f"{{'surprise': 0.3}}, got {taken_for!r}"
            )
        total = sum(shares.values())
        if not (all(share >= 0 for share in shares.values()) and total <= 1 + 1e-9):
            raise ValueError(
                f"shares of {true!r} must be 0 or more and sum to at most 1, got {shares}"
            )
        matrix[row, row] = max(0.0, 1 - total)
        for name, share in shares.items():
            matrix[row, _place(name, order)] += share
    return matrix


def _is_number(share: object) -> bool:
    return isinstance(share, (int, float)) and not isinstance(share, bool)


def crowd_counts(votes: Tensor | None) -> Tensor:
    """Count the votes of single people for faces of each class: the noise of one annotator.

    The class of a face is the one with more than half of its votes. Other faces are left out.

    Args:
        votes: number of votes for each class, int64 (N, C), or ``None``.

    Returns:
        int64 (C, C), a row per class of the faces.

    Raises:
        ValueError: there are no votes, or no face has more than half of them for one class.

    >>> crowd_counts(torch.tensor([[8, 2, 0], [1, 9, 0], [5, 5, 0]]))
    tensor([[8, 2, 0],
            [1, 9, 0],
            [0, 0, 0]])
    """
    if votes is None:
        raise ValueError(
            "the data set has no votes of several people; use one that has, such as FERPlus"
        )
    seen = majority(votes)
    decided = seen >= 0
    if not bool(decided.any()):
        raise ValueError("no face of the data set has more than half of its votes for one class")
    counts = votes.new_zeros(votes.shape[1], votes.shape[1])
    return counts.index_add(0, seen[decided], votes[decided])


def majority(votes: Tensor) -> Tensor:
    """Return the class with more than half of the votes of each face (N), or -1 without one."""
    most, leader = votes.max(dim=1)
    return leader.where(2 * most > votes.sum(dim=1), -1)


def transition_matrix(counts: Tensor) -> Tensor:
    r"""Return the probability of each given class for each true one, from counts (C, C).

    .. math:: T_{ck} = \frac{n_{ck}}{\sum_j n_{cj}}

    A class without a sample keeps its label: :math:`T_{cc} = 1`. The matrix is float64 on the CPU,
    because not every device has float64.

    >>> transition_matrix(torch.tensor([[8, 2], [0, 0]]))
    tensor([[0.8000, 0.2000],
            [0.0000, 1.0000]], dtype=torch.float64)
    """
    counts = counts.cpu().double()
    sums = counts.sum(dim=1, keepdim=True)
    identity = torch.eye(len(counts), dtype=torch.float64, device="cpu")
    return (counts / sums).where(sums > 0, identity)


def without_diagonal(matrix: Tensor) -> Tensor:
    r"""Return the distribution of wrong classes, to use it with any rate.

    .. math:: T'_{ck} = \frac{T_{ck}}{1 - T_{cc}} \quad (k \neq c)

    A class without wrong labels keeps its label.

    >>> without_diagonal(torch.tensor([[0.6, 0.3, 0.1], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]))
    tensor([[0.0000, 0.7500, 0.2500],
            [0.0000, 1.0000, 0.0000],
            [0.0000, 1.0000, 0.0000]], dtype=torch.float64)
    """
    identity = torch.eye(len(matrix), dtype=torch.float64, device="cpu")
    wrong = matrix.cpu().double() * (1 - identity)
    sums = wrong.sum(dim=1, keepdim=True)
    return (wrong / sums).where(sums > 0, identity)


def _place(name: str, order: Sequence[str]) -> int:
    if not isinstance(name, str) or class_name(name) not in order:
        raise ValueError(f"confusions must name classes of {', '.join(order)}, got {name!r}")
    return order.index(class_name(name))
