"""Judge predictions: accuracy per class, and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustfer.metrics import (
    accuracy,
    calibration_error,
    confusion_matrix,
    mean_class_accuracy,
)

_BINS = 15
_COLDEST, _HOTTEST = 0.05, 20.0


class Bin(NamedTuple):
    """Predictions of similar confidence: their count, mean confidence, and accuracy."""

    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Judgement:
    """The comparison of predictions with labels.

    Attributes:
        classes: names of the classes.
        confusion: int64 (C, C), a row per label, a column per predicted class.
        calibration_error: mean gap between confidence and accuracy.
        reliability: bins of confidence, only those with images.
    """

    classes: tuple[str, ...]
    confusion: Tensor
    calibration_error: float
    reliability: list[Bin]

    def figures(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return {
            "images": int(self.confusion.sum()),
            "accuracy": accuracy(self.confusion),
            "mean_class_accuracy": mean_class_accuracy(self.confusion),
            "calibration_error": self.calibration_error,
            "classes": per_class(self.confusion, self.classes),
            "confusion": self.confusion.tolist(),
            "reliability": [one._asdict() for one in self.reliability],
        }

    def text(self) -> str:
        """Return the figures as a table."""
        width = max(map(len, self.classes))
        lines = [
            f"accuracy {accuracy(self.confusion):.2%}, mean-class accuracy "
            f"{mean_class_accuracy(self.confusion):.2%}, calibration error "
            f"{self.calibration_error:.2%}",
            "",
            f"{'class':{width}}  images   recall  precision  share given  share predicted",
        ]
        for row in per_class(self.confusion, self.classes):
            shares = (row["recall"], row["precision"], row["share_given"], row["share_predicted"])
            recall, precision, given, predicted = (_percent(share) for share in shares)
            lines.append(
                f"{row['class']:{width}}{row['images']:8}{recall:>9}{precision:>11}"
                f"{given:>13}{predicted:>17}"
            )
        return "\n".join(lines)


def judge(probability: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Judgement:
    """Compare probabilities (N, C) with labels (N)."""
    confusion = confusion_matrix(probability.argmax(1), targets, num_classes=len(classes))
    error = calibration_error(probability, targets, bins=_BINS)
    return Judgement(classes, confusion, error, reliability(probability, targets))


def per_class(confusion: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a row for each class. A share of no images is ``None``."""
    given, predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    right, total = confusion.diagonal().tolist(), int(confusion.sum())
    return [
        {
            "class": name,
            "images": given[row],
            "recall": right[row] / given[row] if given[row] else None,
            "precision": right[row] / predicted[row] if predicted[row] else None,
            "share_given": given[row] / total,
            "share_predicted": predicted[row] / total,
        }
        for row, name in enumerate(classes)
    ]


def reliability(probability: Tensor, targets: Tensor) -> list[Bin]:
    """Return bins of equal width in confidence, lowest first, without empty ones."""
    confidence, predicted = probability.max(1)
    right = (predicted == targets).double()
    # As in calibration_error: a confidence on the edge of two bins counts in the lower one.
    edges = (torch.arange(1, _BINS, dtype=torch.float64) / _BINS).to(confidence)
    place = torch.bucketize(confidence, edges)
    confidence = confidence.double()
    bins = []
    for number in place.unique().tolist():
        inside = place == number
        means = (float(values[inside].mean()) for values in (confidence, right))
        bins.append(Bin(int(inside.sum()), *means))
    return bins


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    r"""Return the temperature T that minimizes the cross entropy of ``softmax(logits / T)``.

    The loss is convex in :math:`b = 1 / T`. Its slope, the mean of :math:`\sum_k p_k z_k - z_y`,
    grows with b, so bisection finds its zero. T stays between 0.05 and 20.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    logits = logits.double()
    wanted = float(logits.gather(1, targets[:, None]).mean())
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    for _ in range(60):
        middle = (low + high) / 2
        found = float(((logits * middle).softmax(1) * logits).sum(1).mean())
        low, high = (low, middle) if found > wanted else (middle, high)
    return 2 / (low + high)


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return ``softmax(logits / temperature)``."""
    return torch.softmax(logits.double() / temperature, 1)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
