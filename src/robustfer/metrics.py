"""Measure predictions: accuracy overall and per class, calibration, last and best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robustfer._checks import (
    check_bool,
    check_class_index,
    check_distribution,
    check_finite,
    check_floating,
    check_int64,
    check_range,
    check_shapes,
    check_whole_number,
    check_within,
)

__all__ = [
    "History",
    "accuracy",
    "adjust_to_shares",
    "calibration_error",
    "confusion_matrix",
    "correct_predictions",
    "mean_class_accuracy",
]


def confusion_matrix(predicted: Tensor, target: Tensor, *, num_classes: int) -> Tensor:
    """Count pairs of true and predicted classes. Add the matrices of several batches.

    Args:
        predicted: the predicted classes, ``logits.argmax(dim=1)``.
        target: the true classes.
        num_classes: number of classes C.

    Shape:
        ``predicted`` and ``target`` int64 (B) -> int64 (C, C), a row for each true class, a column
        for each predicted class.

    Raises:
        ValueError: the shapes differ, or a value is not a class.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    num_classes = check_whole_number("num_classes", num_classes, 1)
    check_shapes(predicted=(predicted, "B"), target=(target, "B"))
    check_int64(predicted=predicted, target=target)
    # Always checked, because a class that is too large would be counted in the next row.
    check_class_index(num_classes, predicted=predicted, target=target)
    pairs = target * num_classes + predicted
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def accuracy(confusion: Tensor) -> float:
    r"""Return the share of correct predictions.

    .. math:: \frac{\sum_c n_{cc}}{\sum_{c,k} n_{ck}}

    with :math:`n_{ck}` the number of samples of true class c and predicted class k.

    Shape:
        ``confusion`` (C, C), of :func:`confusion_matrix`, or shares of the samples -> a number in
        [0, 1].

    Raises:
        ValueError: the matrix is not square, counts no sample, or has a value that is negative or
            not finite.

    >>> accuracy(torch.tensor([[3, 1], [0, 0]]))
    0.75
    """
    counts = _counts(confusion)
    return float(counts.diagonal().sum() / counts.sum())


def mean_class_accuracy(confusion: Tensor) -> float:
    r"""Return the share of correct predictions of each class, averaged over the classes.

    .. math:: \frac{1}{|P|} \sum_{c \in P} \frac{n_{cc}}{\sum_k n_{ck}}

    where P are the classes that have a sample, and :math:`n_{ck}` is the number of samples of true
    class c and predicted class k.

    Shape:
        ``confusion`` (C, C), of :func:`confusion_matrix`, or shares of the samples -> a number in
        [0, 1].

    Raises:
        ValueError: the matrix is not square, counts no sample, or has a value that is negative or
            not finite.

    >>> mean_class_accuracy(torch.tensor([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    0.625
    """
    counts = _counts(confusion)
    samples = counts.sum(dim=1)
    present = samples > 0
    return float((counts.diagonal()[present] / samples[present]).mean())


def calibration_error(probabilities: Tensor, target: Tensor, *, bins: int = 15) -> float:
    r"""Return the expected calibration error: the mean gap between confidence and accuracy.

    .. math:: \sum_b \frac{|B_b|}{N} \Bigl| \frac{1}{|B_b|} \sum_{n \in B_b} [\hat y_n = y_n]
        - \frac{1}{|B_b|} \sum_{n \in B_b} \max_c p_{n,c} \Bigr|

    over bins of equal width in the confidence :math:`\max_c p_{n,c}`. A confidence on the edge of
    two bins counts in the lower one. Networks that have memorised wrong labels are overconfident,
    which accuracy does not show.

    Args:
        probabilities: predictions of all samples, ``logits.softmax(dim=1)``.
        target: the true classes.
        bins: number of bins.

    Returns:
        The error in [0, 1].

    Shape:
        probabilities ``(N, C)``, target ``(N)`` int64.

    Raises:
        ValueError: an argument does not fit, a row does not sum to 1, or there are no samples.

    Reference:
        Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.

    >>> probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    >>> round(calibration_error(probabilities, torch.tensor([0, 1])), 4)  # right half of the time
    0.4
    """
    bins = check_whole_number("bins", bins, 1)
    check_shapes(probabilities=(probabilities, "N C"), target=(target, "N"))
    check_floating(probabilities=probabilities)
    check_int64(target=target)
    check_class_index(probabilities.shape[1], target=target)
    check_distribution(probabilities=probabilities)
    confidence, predicted = probabilities.max(dim=1)
    right = (predicted == target).cpu().double()
    # On the CPU, because not every device has float64.
    edges = torch.arange(1, bins, dtype=torch.float64, device="cpu") / bins
    # In the dtype of the confidences: only then does a confidence on an edge equal it.
    edges = edges.to(confidence.dtype).double()
    confidence = confidence.cpu().double()
    place = torch.bucketize(confidence, edges)
    surplus = right - confidence
    gaps = torch.zeros(bins, dtype=torch.float64, device="cpu")
    return float(gaps.index_add(0, place, surplus).abs().sum() / len(target))


def adjust_to_shares(
    probabilities: Tensor,
    given_shares: Tensor,
    true_shares: Tensor,
    *,
    strength: float = 1.0,
    equal: float = 0.0,
) -> Tensor:
    r"""Correct predictions of a network trained on labels with the wrong class shares.

    .. math:: p'_k \propto p_k \, \bigl( \pi_k^{1 - e} / \rho_k \bigr)^\tau

    Use it for a network trained with plain cross entropy on the given labels, which predicts their
    shares. A network trained with forward correction already predicts the true shares. Pass these
    as ``given_shares`` to move it towards equal shares.

    The true shares give the best accuracy. They make rare classes rare, which lowers mean-class
    accuracy. ``equal=0.5`` goes half of the way to equal shares.

    Args:
        probabilities: :math:`p`, predicted probabilities.
        given_shares: :math:`\rho`, share of each class in the training labels.
        true_shares: :math:`\pi`, share of each class in the truth, see
            :func:`robustfer.noise.transition_from_verified`.
        strength: :math:`\tau`, how much of the correction to make: 1 for all of it.
        equal: :math:`e` in [0, 1], how far to go from the true shares to equal shares.

    Shape:
        probabilities ``(N, C)``, given_shares ``(C)``, true_shares ``(C)`` -> ``(N, C)``, rows sum
        to 1; in the dtype of the probabilities, float32 for half inputs.

    Raises:
        ValueError: an argument does not fit, shares do not sum to 1, or a given share is 0.

    >>> given_shares, true_shares = torch.tensor([0.2, 0.8]), torch.tensor([0.5, 0.5])
    >>> adjust_to_shares(torch.tensor([[0.5, 0.5]]), given_shares, true_shares)
    tensor([[0.8000, 0.2000]])
    """
    check_shapes(
        probabilities=(probabilities, "N* C"),
        given_shares=(given_shares, "C"),
        true_shares=(true_shares, "C"),
    )
    check_floating(probabilities=probabilities, given_shares=given_shares, true_shares=true_shares)
    check_range("strength", strength, 0.0)
    check_range("equal", equal, 0.0, 1.0)
    check_distribution(
        probabilities=probabilities,
        given_shares=given_shares[None],
        true_shares=true_shares[None],
    )
    if bool((given_shares <= 0).any()):
        raise ValueError(
            f"given_shares must be above 0 for each class, got 0 for class "
            f"{int(given_shares.argmin())}; leave out classes without labels"
        )
    rows = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    # In logarithms, because a product of small and large numbers could round to zero.
    logits = rows.clamp(min=torch.finfo(rows.dtype).tiny).log()
    if strength:
        # xlogy, because a true share of 0 to the power of 0 is 1.
        ratio = torch.xlogy(1 - equal, true_shares.cpu().double())
        ratio = ratio - given_shares.cpu().double().log()
        logits = logits + (strength * ratio).to(logits)
    return logits.softmax(dim=1)


def correct_predictions(
    probabilities: Tensor, transition: Tensor, shares: Tensor, *, steps: int = 5
) -> Tensor:
    r"""Correct predictions of a network trained on labels that go wrong by class.

    .. math::
        q^{(0)} = \pi, \qquad
        q^{(s+1)}_k = q^{(s)}_k \sum_l \frac{T_{kl} \, p_l}{\sum_j q^{(s)}_j T_{jl}}

    Such a network predicts the label that a sample would get. This is iterative Bayesian unfolding:
    it looks for the true class that such labels come from. With many steps it converges to the
    :math:`q` with :math:`q T = p`, if that is a distribution, but enlarges small errors of
    :math:`p` and :math:`T`. Few steps stay close to the shares, so rare classes become rarer.

    Unlike :func:`adjust_to_shares` it does little if labels go wrong evenly, because the predicted
    class is then the right one already. Do not use it for a network that was trained with the
    matrix, as by :class:`robustfer.losses.ForwardCorrectionLoss`.

    Args:
        probabilities: :math:`p`, predicted probabilities.
        transition: :math:`T`, probability of each learnt label (column) by true class (row), see
            :func:`robustfer.noise.transition_from_verified`.
        shares: :math:`\pi`, share of each class in the truth.
        steps: number of steps.

    Shape:
        probabilities ``(N, C)``, transition ``(C, C)``, shares ``(C)`` -> ``(N, C)``, rows sum to
        1; in the dtype of the probabilities, float32 for half inputs.

    Raises:
        ValueError: an argument does not fit, or rows do not sum to 1.

    Reference:
        D'Agostini, A multidimensional unfolding method based on Bayes' theorem, Nuclear Instruments
        and Methods in Physics Research A, 1995.

    >>> transition = torch.tensor([[0.5, 0.5], [0.0, 1.0]])  # half of class 0 is labelled 1
    >>> probabilities = torch.tensor([[0.4, 0.6], [0.1, 0.9]])
    >>> correct_predictions(probabilities, transition, shares=torch.tensor([0.6, 0.4]))
    tensor([[0.7497, 0.2503],
            [0.2402, 0.7598]])
    """
    check_shapes(
        probabilities=(probabilities, "N* C"), transition=(transition, "C C"), shares=(shares, "C")
    )
    check_floating(probabilities=probabilities, transition=transition, shares=shares)
    check_distribution(probabilities=probabilities, transition=transition, shares=shares[None])
    steps = check_whole_number("steps", steps, 1)
    rows = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    matrix, found = transition.to(rows), shares.to(rows).expand_as(rows)
    with torch.autocast(rows.device.type, enabled=False):  # it would round products to bfloat16
        for _ in range(steps):
            told = found @ matrix
            # A label that no class gives tells nothing.
            ratio = torch.where(told > 0, rows / told, 0.0)
            updated = found * (ratio @ matrix.T)
            total = updated.sum(dim=1, keepdim=True)
            found = torch.where(total > 0, updated / total, found)
    return found


class History:
    """Collect the values of each epoch, and report the last and the best epoch separately.

    Judge a method by the last epoch, or by the mean of the last few. The best epoch is chosen by
    the reported numbers themselves, so it is too optimistic.

    >>> history = History()
    >>> for value in (0.5, 0.8, 0.7):
    ...     history.add({"accuracy": value})
    >>> history.last, history.best("accuracy")
    ({'epoch': 3, 'accuracy': 0.7}, {'epoch': 2, 'accuracy': 0.8})
    >>> history.summary("accuracy")
    'accuracy: last 0.7000 (epoch 3), mean of the last 3 0.6667, best 0.8000 (epoch 2)'
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self.epochs)

    def add(self, values: Mapping[str, float | Tensor]) -> None:
        """Append the values of the next epoch. Epochs count from 1.

        Raises:
            ValueError: a value is named ``epoch``.
        """
        if "epoch" in values:
            raise ValueError("values must not hold 'epoch', which History counts; leave it out")
        # float() of a tensor with a gradient warns.
        numbers = {
            name: float(value.detach() if isinstance(value, Tensor) else value)
            for name, value in values.items()
        }
        self.epochs.append({"epoch": len(self) + 1, **numbers})

    @property
    def last(self) -> dict[str, float]:
        """``epoch`` and the values of the last epoch.

        Raises:
            ValueError: there is no epoch yet.
        """
        if not self.epochs:
            raise ValueError("the history has no epoch yet; call add() first")
        return dict(self.epochs[-1])

    def best(self, name: str, *, largest: bool = True) -> dict[str, float]:
        """Return the epoch where a value was best, the first of several. NaN is never best.

        Args:
            name: name of the value.
            largest: True if large values are good; False for a loss.

        Raises:
            TypeError: ``largest`` is not a bool.
            ValueError: no epoch has the value, or it is always NaN.
        """
        check_bool("largest", largest)
        known = [epoch for epoch in self._with(name) if not math.isnan(epoch[name])]
        if not known:
            raise ValueError(f"{name!r} is NaN in every epoch, so no epoch is best")
        pick = max if largest else min
        return dict(pick(known, key=lambda epoch: epoch[name]))

    def mean_of_last(self, name: str, *, epochs: int = 5) -> float:
        """Return the mean of a value over the last epochs that have it, or over all if fewer.

        Raises:
            ValueError: ``epochs`` is not a positive whole number, or no epoch has the value.
        """
        epochs = check_whole_number("epochs", epochs, 1)
        chosen = self._with(name)[-epochs:]
        return math.fsum(epoch[name] for epoch in chosen) / len(chosen)

    def summary(self, name: str, *, largest: bool = True) -> str:
        """Return one line with the last value, the mean of the last five, and the best.

        Only epochs that have the value count.

        Raises:
            TypeError: ``largest`` is not a bool.
            ValueError: no epoch has the value, or it is always NaN.
        """
        best, known = self.best(name, largest=largest), self._with(name)
        return (
            f"{name}: last {known[-1][name]:.4f} (epoch {known[-1]['epoch']}), "
            f"mean of the last {min(5, len(known))} {self.mean_of_last(name):.4f}, "
            f"best {best[name]:.4f} (epoch {best['epoch']})"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the history as plain containers, for a resume file."""
        return {"epochs": [dict(epoch) for epoch in self.epochs]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the history by that of a :meth:`state_dict`."""
        self.epochs = [dict(epoch) for epoch in state["epochs"]]

    def _with(self, name: str) -> list[dict[str, float]]:
        found = [epoch for epoch in self.epochs if name in epoch]
        if not found:
            names = sorted({name for epoch in self.epochs for name in epoch} - {"epoch"})
            there = f"; there are {', '.join(names)}" if names else ""
            raise ValueError(f"no epoch has a value named {name!r}{there}")
        return found


def _counts(confusion: Tensor) -> Tensor:
    """Return a confusion matrix in float64, or raise if its values are not counts or shares."""
    check_shapes(confusion=(confusion, "C C"))
    # On the CPU, because not every device has float64.
    counts = confusion.detach().cpu().double()
    check_finite(confusion=counts)
    check_within(0, math.inf, confusion=counts)
    if not bool(counts.any()):
        raise ValueError("confusion must count at least one sample, got none")
    return counts
