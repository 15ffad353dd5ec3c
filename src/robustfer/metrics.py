"""How good predictions are: overall and per class, at the last epoch and at the best one."""

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
    check_floating,
    check_int64,
    check_range,
    check_shapes,
    check_whole_number,
)

__all__ = [
    "History",
    "accuracy",
    "adjust_to_shares",
    "calibration_error",
    "confusion_matrix",
    "mean_class_accuracy",
]


def confusion_matrix(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count how often each class was taken for each; the matrices of several batches add up.

    Args:
        predicted: the classes predicted, ``logits.argmax(dim=1)``.
        target: the true classes.
        num_classes: number of classes C.

    Shape:
        ``predicted`` and ``target`` int64 (B) -> int64 (C, C): a row for each true class, a column
        for each predicted one.

    Raises:
        ValueError: the shapes differ, or a value is not a class.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), num_classes=2)
    tensor([[1, 1],
            [0, 1]])
    """
    num_classes = check_whole_number("num_classes", num_classes, 1)
    check_shapes(predicted=(predicted, "B"), target=(target, "B"))
    check_int64(predicted=predicted, target=target)
    # Always: a class too large would silently be counted in the next row.
    check_class_index(num_classes, predicted=predicted, target=target)
    pairs = target * num_classes + predicted
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def accuracy(confusion: Tensor) -> float:
    r"""Return the share of samples predicted rightly.

    .. math:: \frac{\sum_c n_{cc}}{\sum_{c,k} n_{ck}}

    Shape:
        ``confusion`` (C, C), of :func:`confusion_matrix` -> a number in [0, 1].

    Raises:
        ValueError: not square, or without a sample.

    >>> accuracy(torch.tensor([[3, 1], [0, 0]]))
    0.75
    """
    _check_confusion(confusion)
    return int(confusion.diagonal().sum()) / int(confusion.sum())


def mean_class_accuracy(confusion: Tensor) -> float:
    r"""Return the mean over the classes of the share predicted rightly, each class counting alike.

    .. math:: \frac{1}{|P|} \sum_{c \in P} \frac{n_{cc}}{\sum_k n_{ck}}

    where P are the classes that have a sample: a class without one is left out of the mean.

    Shape:
        ``confusion`` (C, C), of :func:`confusion_matrix` -> a number in [0, 1].

    Raises:
        ValueError: not square, or without a sample.

    >>> mean_class_accuracy(torch.tensor([[3, 1, 0], [1, 1, 0], [0, 0, 0]]))
    0.625
    """
    _check_confusion(confusion)
    confusion = confusion.cpu()  # float64 below, which not every device has
    samples = confusion.sum(dim=1)
    present = samples > 0
    recall = confusion.diagonal()[present].double() / samples[present]
    return float(recall.mean())


def calibration_error(probability: Tensor, target: Tensor, *, bins: int = 15) -> float:
    r"""How far a network's confidence lies from how often it is right (expected calibration error).

    .. math:: \sum_b \frac{|B_b|}{N} \Bigl| \frac{1}{|B_b|} \sum_{n \in B_b} [\hat y_n = y_n]
        - \frac{1}{|B_b|} \sum_{n \in B_b} \max_c p_{n,c} \Bigr|

    over bins of equal width in the confidence :math:`\max_c p_{n,c}`; one of exactly a bin's edge
    falls into the bin below. Networks that have memorised wrong labels are too sure of themselves:
    accuracy does not show it.

    Args:
        probability: predicted probabilities of all samples, ``logits.softmax(dim=1)``.
        target: the true classes.
        bins: number of bins.

    Returns:
        The error in [0, 1].

    Shape:
        probability ``(N, C)``, target ``(N)`` int64.

    Raises:
        ValueError: an argument does not fit, a row does not sum to 1, or there is no sample.

    Reference:
        Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.

    >>> probability = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    >>> round(calibration_error(probability, torch.tensor([0, 1])), 4)  # right half of the time
    0.4
    """
    bins = check_whole_number("bins", bins, 1)
    check_shapes(probability=(probability, "N C"), target=(target, "N"))
    check_floating(probability=probability)
    check_int64(target=target)
    check_class_index(probability.shape[1], target=target)
    check_distribution(probability=probability)
    confidence, predicted = probability.max(dim=1)
    right = (predicted == target).cpu().double()
    confidence = confidence.cpu().double()  # not every device has float64
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    surplus = right - confidence
    gaps = torch.zeros(bins, dtype=torch.float64, device="cpu")
    return float(gaps.index_add(0, place, surplus).abs().sum() / len(target))


def adjust_to_shares(
    probabilities: Tensor,
    given: Tensor,
    true: Tensor,
    strength: float = 1.0,
    *,
    equal: float = 0.0,
) -> Tensor:
    r"""Correct predictions for labels whose class shares differ from those of the truth.

    .. math:: p'_k \propto p_k \, \bigl( \pi_k^{1 - e} / \rho_k \bigr)^\tau

    Use it for a network that was trained plainly on the given labels: it predicts their shares. One
    that was trained with forward correction predicts the true shares already; pass these as
    ``given`` to move it on towards equal shares.

    The true shares give the best accuracy. They make rare classes rare, which lowers mean-class
    accuracy. ``equal=0.5`` goes half of the way to classes that are all equally frequent.

    Args:
        probabilities: :math:`p`, predicted probabilities.
        given: :math:`\rho`, share of each class in the training labels.
        true: :math:`\pi`, share of each class in the truth, see
            :func:`robustfer.noise.transition_from_verified`.
        strength: :math:`\tau`, how much of the correction to make: 1 for all of it.
        equal: :math:`e` in [0, 1], how far to go from the true shares to equal ones.

    Shape:
        probabilities ``(N, C)``, given ``(C)``, true ``(C)`` -> ``(N, C)``, rows that sum to 1; in
        the dtype of the probabilities, float32 for half inputs.

    Raises:
        ValueError: an argument does not fit, shares do not sum to 1, or a given share is 0.

    >>> probabilities = torch.tensor([[0.5, 0.5]])
    >>> adjust_to_shares(probabilities, given=torch.tensor([0.2, 0.8]), true=torch.tensor([0.5, 0.5]))
    tensor([[0.8000, 0.2000]])
    """  # noqa: E501 - the example is one line
    check_shapes(probabilities=(probabilities, "N* C"), given=(given, "C"), true=(true, "C"))
    check_floating(probabilities=probabilities, given=given, true=true)
    check_range("strength", strength, 0.0)
    check_range("equal", equal, 0.0, 1.0)
    check_distribution(probabilities=probabilities, given=given[None], true=true[None])
    if bool((given <= 0).any()):
        raise ValueError(
            f"given must be above 0 for each class, got 0 for class {int(given.argmin())}; leave "
            "out a class without a label"
        )
    rows = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    # In logarithms: a small probability times the power of a large ratio may round to nothing.
    logits = rows.clamp(min=torch.finfo(rows.dtype).tiny).log()
    if strength:
        # xlogy, as a true share of 0 to the power of 0 is 1.
        ratio = torch.xlogy(1 - equal, true.cpu().double()) - given.cpu().double().log()
        logits = logits + (strength * ratio).to(logits)
    return logits.softmax(dim=1)


class History:
    """The values of each epoch, with the last and the best kept apart.

    The best epoch is picked by looking at the very numbers that are reported, so it flatters: the
    last epoch, or the mean of the last few, is what a method is to be judged by.

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
        """Append the values of the next epoch; epochs count from 1.

        Raises:
            ValueError: a value is called ``epoch``.
        """
        if "epoch" in values:
            raise ValueError("values must not have the name 'epoch', which is counted here")
        # A tensor that holds a graph, as a loss's terms do, warns when it is made a float.
        numbers = {
            name: float(value.detach() if isinstance(value, Tensor) else value)
            for name, value in values.items()
        }
        self.epochs.append({"epoch": len(self) + 1, **numbers})

    @property
    def last(self) -> dict[str, float]:
        """The last epoch: ``epoch`` and its values.

        Raises:
            ValueError: there is no epoch yet.
        """
        if not self.epochs:
            raise ValueError("the history has no epoch yet")
        return dict(self.epochs[-1])

    def best(self, name: str, *, largest: bool = True) -> dict[str, float]:
        """Return the epoch where a value was best, the first of equals; NaN is never best.

        Args:
            name: the value to look at.
            largest: whether large values are good; false for a loss.

        Raises:
            TypeError: ``largest`` is not a bool.
            ValueError: no epoch has such a number.
        """
        check_bool("largest", largest)
        known = [epoch for epoch in self._with(name) if not math.isnan(epoch[name])]
        if not known:
            raise ValueError(f"{name!r} is NaN in every epoch, so none is best")
        pick = max if largest else min
        return dict(pick(known, key=lambda epoch: epoch[name]))

    def mean_of_last(self, name: str, *, epochs: int = 5) -> float:
        """Return the mean of a value over the last epochs that have it, or over all if fewer do.

        Raises:
            ValueError: ``epochs`` is not a positive whole number, or no epoch has the value.
        """
        epochs = check_whole_number("epochs", epochs, 1)
        chosen = self._with(name)[-epochs:]
        return math.fsum(epoch[name] for epoch in chosen) / len(chosen)

    def summary(self, name: str, *, largest: bool = True) -> str:
        """Say the last value, the mean of the last five and the best in one line.

        Epochs that lack the value, as where only every second one is evaluated, do not count.

        Raises:
            ValueError: no epoch has such a number.
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
        """Take over the history of :meth:`state_dict`."""
        self.epochs = [dict(epoch) for epoch in state["epochs"]]

    def _with(self, name: str) -> list[dict[str, float]]:
        found = [epoch for epoch in self.epochs if name in epoch]
        if not found:
            names = sorted({name for epoch in self.epochs for name in epoch} - {"epoch"})
            there = f"; there are {', '.join(names)}" if names else ""
            raise ValueError(f"no epoch has a number called {name!r}{there}")
        return found


def _check_confusion(confusion: Tensor) -> None:
    check_shapes(confusion=(confusion, "C C"))
    if not int(confusion.sum()):
        raise ValueError("confusion must count at least one sample, got none")
