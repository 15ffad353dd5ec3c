"""What the votes of several people say about a face: FERPlus's vote rules as functions."""

from __future__ import annotations

from torch import Tensor

from robustfer._checks import check_shapes
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT

#: The columns of a table of votes: the classes in robustfer's order, then what is no expression.
VOTE_COLUMNS: tuple[str, ...] = (*EXPRESSIONS_WITH_CONTEMPT, "unknown", "NF")


def without_single_votes(votes: Tensor) -> Tensor:
    """Drop what one person alone saw: such votes count as slips.

    Shape:
        ``votes`` (N, V) -> (N, V)

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> import torch
    >>> without_single_votes(torch.tensor([[7, 1, 2]]))
    tensor([[7, 0, 2]])
    """
    check_shapes(votes=(votes, "N V"))
    return votes.where(votes > 1, 0)


def majority_column(votes: Tensor) -> Tensor:
    """Return the column with more than half of a row's votes, -1 where none has.

    Single votes are dropped first (:func:`without_single_votes`); a tie has no majority.

    Shape:
        ``votes`` (N, V) -> int64 (N)

    >>> import torch
    >>> majority_column(torch.tensor([[6, 4, 0], [5, 5, 0], [5, 3, 2], [2, 1, 1]]))
    tensor([ 0, -1, -1,  0])
    """
    kept = without_single_votes(votes)
    most, column = kept.max(dim=1)
    return column.where(2 * most > kept.sum(dim=1), -1)


def vote_probabilities(votes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    r"""Return the votes for the classes as probabilities, and where the classes have a majority.

    .. math:: p_{nc} = \frac{v_{nc}}{\sum_{k < C} v_{nk}}

    with the single votes dropped (:func:`without_single_votes`). The columns from ``num_classes``
    on (unknown, no face, a class that is not asked for) are no part of the sum; a row is decided
    where these have less than half of all its votes.

    Args:
        votes: number of votes for each column, the classes first.
        num_classes: number of columns that are classes, C.

    Shape:
        ``votes`` (N, V) -> probabilities float32 (N, C), zeros where not decided; decided bool (N)

    >>> import torch
    >>> vote_probabilities(torch.tensor([[6, 2, 2], [2, 0, 8]]), num_classes=2)
    (tensor([[0.7500, 0.2500],
            [0.0000, 0.0000]]), tensor([ True, False]))
    """
    kept = without_single_votes(votes)
    if not 1 <= num_classes <= votes.shape[1]:
        raise ValueError(f"num_classes must lie in [1, {votes.shape[1]}], got {num_classes}")
    for_classes = kept[:, :num_classes].sum(dim=1)
    decided = 2 * for_classes > kept.sum(dim=1)
    probabilities = kept[:, :num_classes].float() / for_classes.clamp(min=1).float()[:, None]
    return probabilities * decided[:, None], decided
