"""Measure what a hundred verified labels are worth without using them in training.

A network predicts the class shares of the labels that it was trained on. Verified labels give the
true shares, so the predictions can be adjusted after training (see
``robustfer.metrics.adjust_to_shares``). Methods that train with verified labels must be better.
"""

from __future__ import annotations

from torch import Tensor

from examples.train.data import seed_of
from examples.train.transition import draw_verified
from robustfer.data import LabeledFaces
from robustfer.metrics import accuracy, adjust_to_shares, confusion_matrix, mean_class_accuracy

VERIFIED = 100
# How far to go from the true shares to equal ones.
TARGETS = {"truth": 0.0, "half": 0.5}


def adjusted_figures(
    probabilities: Tensor,
    targets: Tensor,
    train_set: LabeledFaces,
    *,
    seed: int,
    corrected: bool,
    learnt: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Return the accuracy of predictions adjusted by a hundred verified training labels.

    Args:
        probabilities: predictions for the evaluation faces, (N, C).
        targets: their true classes, (N).
        train_set: training set with given and true labels.
        seed: seed of the run, which chooses the verified labels.
        corrected: whether the network was trained with a transition matrix. It then predicts the
            true shares already.
        learnt: the class shares that it predicts for the training faces, if it was trained on
            other labels.
    """
    given, true = train_set.targets, train_set.true_targets
    assert true is not None
    size = probabilities.shape[1]
    count = min(VERIFIED, len(given))
    _, estimate = draw_verified(given, true, count, num_classes=size, seed=seed_of(seed, 0))
    counts = given.bincount(minlength=size)
    given_shares = counts.clamp(min=1) / counts.clamp(min=1).sum()
    if learnt is None:
        learnt = estimate.shares if corrected else given_shares.double()
    found = {}
    for name, way in TARGETS.items():
        moved = adjust_to_shares(probabilities.double(), learnt, estimate.shares, equal=way)
        found[name] = figures_of(moved, targets)
    return found


def figures_of(probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the accuracy of predictions (N, C), and the mean over the classes."""
    confusion = confusion_matrix(probabilities.argmax(1), targets, probabilities.shape[1])
    return {
        "accuracy": float(accuracy(confusion)),
        "mean_class_accuracy": float(mean_class_accuracy(confusion)),
    }
