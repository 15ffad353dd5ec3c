"""Estimate how many wrong labels shift the class shares, which a transition matrix can undo."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

_Floats = npt.NDArray[np.float64]
_DRAWS = 4000


class Shift(NamedTuple):
    """Share of the wrong labels that shift the class shares.

    Attributes:
        share: posterior mean, in [0, 1].
        low: lower end of its credible interval.
        high: upper end of its credible interval.
        chance: the share that as many wrong labels show on average if they shift nothing.
    """

    share: float
    low: float
    high: float
    chance: float


def shift_of_shares(
    counts: Tensor, *, given_counts: Tensor | None = None, level: float = 0.95
) -> Shift | None:
    r"""Estimate which share of the wrong labels shifts the class shares.

    .. math:: s = \frac{\sum_k \left| \sum_l (J_{kl} - J_{lk}) \right|}{2 \sum_{k \neq l} J_{kl}}

    :math:`J_{kl}` is the share of samples with true class k and given label l. Its posterior is a
    Dirichlet distribution, in a stratified draw one per given label. Wrong labels that go from k to
    l as often as back shift nothing. A small sample still shows some shift: ``chance`` says how
    much.

    Args:
        counts: verified samples of each true class (row) and given label (column), ``(C, C)``.
        given_counts: samples of each given label in the whole data set ``(C)``, for a draw
            stratified by the given label.
        level: probability of the interval.

    Returns:
        the estimate; ``None`` if none of the verified labels is wrong.
    """
    number = counts.numpy()
    row, column = np.triu_indices(len(number), 1)
    pairs = (number + number.T)[row, column]
    if not pairs.sum():
        return None
    generator = np.random.default_rng(0)
    joint = generator.standard_gamma(number + 1 / number.size, (_DRAWS, *number.shape))
    if given_counts is None:
        weight = np.ones(len(number))
    else:
        drawn = number.sum(axis=0)
        # Of the others none is known.
        size = np.where(drawn > 0, given_counts.double().numpy(), 0.0)
        joint *= (size / np.maximum(joint.sum(axis=1), np.finfo(np.float64).tiny))[:, None]
        weight = size / np.maximum(drawn, 1)
    found = _shares(joint)
    # As many weighted labels both ways: the lighter of two labels is drawn more often.
    both = weight[row] + weight[column]
    there = generator.binomial(
        pairs, np.divide(weight[row], both, out=np.full_like(both, 0.5), where=both > 0),
        (_DRAWS, len(pairs)),
    )  # fmt: skip
    balanced = np.zeros((_DRAWS, *number.shape))
    balanced[:, row, column] = there * weight[column]
    balanced[:, column, row] = (pairs - there) * weight[row]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Shift(float(found.mean()), float(low), float(high), float(_shares(balanced).mean()))


def _shares(joint: _Floats) -> _Floats:
    moved = np.abs(joint.sum(axis=2) - joint.sum(axis=1)).sum(axis=1) / 2
    wrong = joint.sum(axis=(1, 2)) - np.trace(joint, axis1=1, axis2=2)
    shares: _Floats = moved / wrong
    return shares
