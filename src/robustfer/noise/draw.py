"""Choose samples to verify, to estimate how labels go wrong."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._checks import check_bool, check_shapes, check_whole_number
from robustfer._inputs import to_tensor


def rows_to_verify(
    given: Tensor | ArrayLike, count: int, *, stratified: bool = True, seed: int = 0
) -> Tensor:
    """Draw the samples whose labels a person verifies, for :func:`transition_from_verified`.

    By default it draws equally many samples of each given label, if there are enough. The estimates
    of the class shares and of the transition matrix are then more certain than for a random draw.
    Rare classes gain most.

    Args:
        given: labels of the data set.
        count: number of samples to draw.
        stratified: draw equally many of each given label. Pass the counts of all given labels as
            ``given_counts`` to :func:`transition_from_verified` then.
        seed: seed of the draw.

    Returns:
        Rows of the data set ``(count)`` int64, in random order, so that it does not reveal labels.

    Shape:
        given integers ``(N)``.

    Raises:
        TypeError: ``stratified`` is not a bool.
        ValueError: ``count`` is more than the samples, or labels are not whole numbers.

    >>> given = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    >>> given[rows_to_verify(given, 12)].bincount()
    tensor([5, 5, 2])
    """
    labels = to_tensor("given", given)
    check_shapes(given=(labels, "N"))
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"given must hold whole numbers, got {labels.dtype}")
    count = check_whole_number("count", count, 0)
    if count > len(labels):
        raise ValueError(f"count must be at most {len(labels)}, the number of samples, got {count}")
    check_bool("stratified", stratified)
    generator = torch.Generator("cpu").manual_seed(check_whole_number("seed", seed, 0, 2**63 - 1))
    order = torch.randperm(len(labels), generator=generator, device="cpu")
    if not stratified:
        return order[:count]
    # Take a row of each label in turn. When a label has no more rows, the others fill its place.
    _, place, counts = torch.unique(labels[order], return_inverse=True, return_counts=True)
    by_label = place.argsort(stable=True)
    turn = torch.empty_like(order)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    turn[by_label] = torch.arange(len(labels), device="cpu") - starts
    chosen = order[turn.argsort(stable=True)[:count]]
    return chosen[torch.randperm(count, generator=generator, device="cpu")]
