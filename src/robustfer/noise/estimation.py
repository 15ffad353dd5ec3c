"""Estimate how labels go wrong, from a few verified labels or from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer import _shown
from robustfer._checks import (
    check_finite,
    check_int64,
    check_range,
    check_shapes,
    check_whole_number,
    check_within,
)
from robustfer._inputs import to_labels, to_probabilities, to_tensor
from robustfer.noise._beta import Floats, beta_quantile

_CHUNK = 65_536


@dataclass(frozen=True, eq=False)
class TransitionEstimate:
    """An estimate of how labels go wrong, from verified labels.

    Attributes:
        matrix: probability that a sample of the true class (row) has the given label (column), or
            its learnt label, float64 ``(C, C)``. Rows sum to 1.
        matrix_low: lower end of the credible interval of each entry, ``(C, C)``.
        matrix_high: upper end, ``(C, C)``.
        shares: true share of each class, float64 ``(C)``. They sum to 1.
        shares_low: lower end of the credible interval of each share, ``(C)``.
        shares_high: upper end, ``(C)``.
        wrong: share of wrong labels in the data set. It rests on the verified samples, and hardly
            on the prior.
        wrong_low: lower end of its credible interval.
        wrong_high: upper end.
        counts: verified samples of each true class (row) and given label (column), ``(C, C)``.
        level: probability of each interval.
    """

    matrix: Tensor
    matrix_low: Tensor
    matrix_high: Tensor
    shares: Tensor
    shares_low: Tensor
    shares_high: Tensor
    wrong: float
    wrong_low: float
    wrong_high: float
    counts: Tensor
    level: float

    def text(self, classes: Sequence[str]) -> str:
        """Return the estimate as a table with a line per true class.

        Args:
            classes: names of the classes.

        Raises:
            ValueError: there is not one name per class.

        >>> true, given = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
        >>> print(transition_from_verified(true, given, num_classes=2).text(["sad", "glad"]))
        true class  verified           share  keeps its label
        sad                3  72 % (29 - 98)   77 % (38 - 98)
        glad               1   28 % (2 - 71)  92 % (53 - 100)
        """
        if len(classes) != len(self.shares):
            raise ValueError(f"classes must have {len(self.shares)} names, got {len(classes)}")
        rows = [("true class", "verified", "share", "keeps its label")]
        for k, name in enumerate(classes):
            kept = self.matrix[k, k], self.matrix_low[k, k], self.matrix_high[k, k]
            share = self.shares[k], self.shares_low[k], self.shares_high[k]
            rows.append((name, str(int(self.counts[k].sum())), _percent(*share), _percent(*kept)))
        return _shown.table(rows, "<>>>")


def transition_from_verified(
    true: Tensor | ArrayLike,
    given: Tensor | ArrayLike,
    *,
    num_classes: int,
    given_counts: Tensor | ArrayLike | None = None,
    learnt: Tensor | ArrayLike | None = None,
    prior: float | None = None,
    prior_diagonal: float = 2.0,
    level: float = 0.95,
) -> TransitionEstimate:
    r"""Estimate the transition matrix and the true class shares from verified labels.

    .. math:: T_{kl} = \frac{n_{kl} + a + b\,[k = l]}{\sum_j (n_{kj} + a + b\,[k = j])}

    :math:`n_{kl}` is the number of verified samples of true class k with the given label l. The
    verified samples must be a random draw of the data set, or a draw stratified by the given label.
    Do not use suspects of a ranking: they do not show how often labels are wrong.

    For a stratified draw pass ``given_counts``. Each verified sample of given label l then weighs
    :math:`N_l / n_{\cdot l}`, the samples in the data set per verified one. The counts of a row are
    scaled to their effective number :math:`(\sum w)^2 / \sum w^2`. A label whose verified samples
    are all ambiguous, or that has none, counts as one sample. Its true class is as the prior says,
    and its intervals are wide.

    A random draw estimates the shares of the samples that are not ambiguous. A stratified draw
    takes the ambiguous samples of a label to be like its other ones.

    The intervals are those of Dirichlet posteriors of the rows and of the shares. In a stratified
    draw, labels with few verified samples borrow from the average of all for their variance.

    For a network that learnt other labels, such as :func:`robustfer.audit.corrected_labels`, pass
    those of the verified samples as ``learnt``. The matrix then says how these go wrong:
    :math:`n_{kl}` sums their probabilities of label l. Take the labels before the verified ones
    replace them.

    Args:
        true: true classes of the verified samples. -1 is an ambiguous sample, which is left out.
        given: their labels in the data set.
        num_classes: number of classes.
        given_counts: samples of each given label in the whole data set, for a stratified draw.
        learnt: the labels that a network learnt instead of the given ones, as probabilities.
        prior: :math:`a`, the prior count of each entry of a row. Default: 0.3. For more than
            seven classes it is less: the wrong labels of a row count 1.8 together.
        prior_diagonal: :math:`b`, the additional prior count of the right label.
        level: probability of the credible intervals, in (0, 1).

    Shape:
        true, given integers ``(N)``, given_counts ``(C)``, learnt ``(N, C)``.

    Raises:
        TypeError: labels are not numbers.
        ValueError: an argument does not fit.

    Reference:
        Hendrycks et al., Using Trusted Data to Train Deep Networks on Labels Corrupted by Severe
        Noise, NeurIPS 2018.

    >>> true, given = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> estimate = transition_from_verified(true, given, num_classes=2)
    >>> estimate.matrix
    tensor([[0.7679, 0.2321],
            [0.0833, 0.9167]], dtype=torch.float64)
    >>> estimate.shares
    tensor([0.7174, 0.2826], dtype=torch.float64)
    """
    num_classes = check_whole_number("num_classes", num_classes, 2, 2**15)
    if prior is None:
        prior = 0.3 * min(1.0, 6 / (num_classes - 1))
    check_range("prior", prior, 0.0, open_low=True)
    check_range("prior_diagonal", prior_diagonal, 0.0)
    check_range("level", level, 0.0, 1.0, open_low=True, open_high=True)
    truth = to_tensor("true", true)
    labels = to_labels("given", given, num_classes=num_classes)
    check_shapes(given=(labels, "N"), true=(truth, "N"))
    check_int64(true=truth)
    check_within(-1, num_classes - 1, true=truth)
    known = truth >= 0
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device="cpu")
    counts.index_put_((truth[known], labels[known]), counts.new_ones(1), accumulate=True)

    # Strata and their sizes in the data set. A random draw is one stratum.
    number = counts.double().numpy()
    if given_counts is None:
        drawn, size = number.sum(axis=1, keepdims=True), np.ones(1)
        right, weight = np.array([np.trace(number)]), np.ones(num_classes)
        unseen = np.zeros(num_classes, dtype=bool)
    else:
        size = _stratum_shares(given_counts, number.sum(axis=0))
        unseen = (size > 0) & (number.sum(axis=0) == 0)
        expected = prior + prior_diagonal * np.eye(num_classes)
        number[:, unseen] = (expected / expected.sum(axis=0))[:, unseen]
        drawn, right = number, number.diagonal()
        weight = size / np.maximum(number.sum(axis=0) / max(number.sum(), 1), 1e-300)
    weighted = number * weight
    if learnt is not None:
        soft = to_probabilities("learnt", learnt)
        check_shapes(learnt=(soft, f"N {num_classes}"), true=(truth, "N"))
        weighted = np.where(unseen, weighted, 0.0)
        weighted += _summed(truth[known], weight[labels[known]], soft[known])
    effective = _effective_counts(weighted, (number * weight**2).sum(axis=1))
    shares, shares_variance = _class_shares(drawn, size, prior)
    pseudo = effective + prior + prior_diagonal * np.eye(num_classes)
    total = pseudo.sum(axis=1, keepdims=True)
    matrix = pseudo / total
    variance = matrix * (1 - matrix) / (total + 1)
    if given_counts is not None and learnt is None:
        spread = _stratified_variance(matrix, shares, size, number.sum(axis=0))
        variance = np.maximum(variance, np.minimum(spread, 0.9 * matrix * (1 - matrix)))
    wrong, wrong_variance = _class_shares(np.stack([drawn.sum(axis=0) - right, right]), size, 0.5)
    wrong_low, wrong_high = _interval(wrong, wrong_variance, level)
    matrix_low, matrix_high = _interval(matrix, variance, level)
    shares_low, shares_high = _interval(shares, shares_variance, level)
    return TransitionEstimate(
        matrix=torch.from_numpy(matrix),
        matrix_low=torch.from_numpy(matrix_low),
        matrix_high=torch.from_numpy(matrix_high),
        shares=torch.from_numpy(shares),
        shares_low=torch.from_numpy(shares_low),
        shares_high=torch.from_numpy(shares_high),
        wrong=float(wrong[0]),
        wrong_low=float(wrong_low[0]),
        wrong_high=float(wrong_high[0]),
        counts=counts,
        level=level,
    )


def transition_from_confident_joint(
    given: Tensor | ArrayLike, probabilities: Tensor | ArrayLike
) -> Tensor:
    r"""Estimate the transition matrix from predictions, without verified labels.

    .. math::
        T_{kl} = \frac{J_{kl} + 1}{\sum_j (J_{kj} + 1)}, \qquad
        J_{kl} = \sum_i [k_i = k] \, [y_i = l]

    with the given labels :math:`y` and the confident class :math:`k_i`. This is the most probable
    class among those whose probability reaches their threshold. The threshold of a class is its
    mean probability over the samples with this label. A sample below all thresholds is not counted.

    The matrix ranks labels well. It does not help training, because it reproduces the shares of the
    given labels. Use :func:`transition_from_verified` for training.

    Args:
        given: the labels in the data set.
        probabilities: predictions of the data set, such as
            :meth:`robustfer.state.TrainingDynamics.probabilities`.

    Shape:
        given integers ``(N)``, probabilities ``(N, C)`` -> float64 ``(C, C)``, a row per true
        class, a column per given label.

    Raises:
        TypeError: an argument is not numbers.
        ValueError: shapes do not fit, a row is not a distribution, or a label is not a class.

    Reference:
        Northcutt et al., Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021.

    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]]
    >>> transition_from_confident_joint([0, 1, 1, 1], probabilities)
    tensor([[0.6667, 0.3333],
            [0.2500, 0.7500]], dtype=torch.float64)
    """
    rows = to_probabilities("probabilities", probabilities)
    num_classes = rows.shape[1]
    labels = to_labels("given", given, num_classes=num_classes)
    check_shapes(probabilities=(rows, "N C"), given=(labels, "N"))
    # One column at a time, because copies of large predictions can exceed the memory.
    threshold = torch.empty(num_classes, dtype=rows.dtype, device="cpu")
    for k in range(num_classes):
        own = rows[:, k][labels == k]
        threshold[k] = own.double().mean() if len(own) else torch.inf
    counts = torch.zeros(num_classes**2, dtype=torch.int64, device="cpu")
    for chunk, own_labels in zip(
        torch.split(rows, _CHUNK), torch.split(labels, _CHUNK), strict=True
    ):
        confident = chunk.masked_fill(chunk < threshold, -1.0)
        value, true = confident.max(dim=1)
        known = value >= 0
        counts += (true * num_classes + own_labels)[known].bincount(minlength=num_classes**2)
    joint = counts.view(num_classes, num_classes).double() + 1
    return joint / joint.sum(dim=1, keepdim=True)


def _stratum_shares(given_counts: Tensor | ArrayLike, drawn: Floats) -> Floats:
    counts = to_tensor("given_counts", given_counts)
    check_shapes(given_counts=(counts, str(len(drawn))))
    check_finite(given_counts=counts)
    check_within(0, float("inf"), given_counts=counts)
    size: Floats = counts.double().numpy()
    if not size.sum():
        raise ValueError("given_counts must be numbers of samples, got only zeros")
    strange = np.flatnonzero((size == 0) & (drawn > 0))
    if len(strange):
        raise ValueError(
            f"given_counts must count every label in given, got 0 for the label {strange[0]} of "
            f"{int(drawn[strange[0]])} verified samples"
        )
    shares: Floats = size / size.sum()
    return shares


def _summed(truth: Tensor, weight: Floats, learnt: Tensor) -> Floats:
    """Return the weighted sum of the learnt labels of each true class."""
    rows = learnt.double().numpy() * weight[:, None]
    total: Floats = np.zeros((rows.shape[1], rows.shape[1]))
    np.add.at(total, truth.numpy(), rows)
    return total


def _effective_counts(weighted: Floats, squares: Floats) -> Floats:
    """Return weighted counts as for a random draw. The sum of a row is its effective number.

    Args:
        weighted: sums of weights per true class and label.
        squares: sums of squared weights per true class.
    """
    total = weighted.sum(axis=1)
    scale = np.divide(total, squares, out=np.zeros_like(total), where=squares > 0)
    scaled: Floats = weighted * scale[:, None]
    return scaled


def _class_shares(drawn: Floats, size: Floats, prior: float) -> tuple[Floats, Floats]:
    """Return mean and variance of the true shares, from independent Dirichlets per stratum.

    The variance of a stratum is that of its samples and one more with the shares of all, weighed by
    the share of the others. Else two samples that agree by chance would seem to be certain. A
    single stratum has the variance of its Dirichlet.
    """
    pseudo = drawn + prior * size
    total = pseudo.sum(axis=0)
    part = np.divide(pseudo, total, out=np.zeros_like(pseudo), where=total > 0)  # no such label
    mean = (size * part).sum(axis=1)
    near = (pseudo + (1 - size) * mean[:, None]) / (total + 1 - size)
    spread = near * (1 - near)
    variance = np.divide(spread, total + size, out=np.zeros_like(near), where=total > 0)
    return mean, (size**2 * variance).sum(axis=1)


def _stratified_variance(matrix: Floats, shares: Floats, size: Floats, drawn: Floats) -> Floats:
    """Return the variance of each entry from that of its stratum, to first order."""
    joint = shares[:, None] * matrix
    of_stratum = joint / joint.sum(axis=0)
    variance = size**2 * of_stratum * (1 - of_stratum) / (drawn + 1)
    others = variance.sum(axis=1, keepdims=True) - variance
    spread: Floats = ((1 - matrix) ** 2 * variance + matrix**2 * others) / shares[:, None] ** 2
    return spread


def _interval(mean: Floats, variance: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the interval of the beta distribution with this mean and variance."""
    total = mean * (1 - mean) / variance - 1
    alpha, beta = mean * total, (1 - mean) * total
    ends = np.array([(1 - level) / 2, (1 + level) / 2]).reshape(2, *[1] * mean.ndim)
    low, high = beta_quantile(alpha, beta, ends)
    return low, high


def _percent(value: Tensor, low: Tensor, high: Tensor) -> str:
    return f"{100 * value:.0f} % ({100 * low:.0f} - {100 * high:.0f})"
