"""Measure what a hundred verified labels are worth without using them in training.

A network predicts how the labels that it was trained on are distributed. Verified labels tell the
true shares of the classes, and how labels go wrong, so predictions can be changed after training
(see ``robustfer.metrics``). Methods that train with verified labels must be better.
"""

from __future__ import annotations

from torch import Tensor

from examples.train.data import seed_of
from examples.train.transition import draw_verified
from robustfer.metrics import (
    accuracy,
    adjust_to_shares,
    confusion_matrix,
    correct_predictions,
    mean_class_accuracy,
)
from robustfer.noise import TransitionEstimate, transition_from_verified

VERIFIED = 100
# How far to go from the true shares to equal ones.
TARGETS = {"truth": 0.0, "half": 0.5}


def adjusted_figures(
    probabilities: Tensor,
    targets: Tensor,
    given: Tensor,
    true: Tensor,
    *,
    seed: int,
    with_matrix: bool = False,
    shares: Tensor | None = None,
    learnt: Tensor | None = None,
    recorded: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Return the accuracy of predictions changed by a hundred verified training labels.

    With ``recorded`` they are also changed without verified labels: by the classes that the network
    itself chose for the training faces, as if these were the true ones.

    Args:
        probabilities: predictions for the evaluation faces, (N, C).
        targets: their true classes, (N).
        given: labels of the training faces, (M).
        true: their true classes, (M).
        seed: seed of the run, which chooses the verified labels.
        with_matrix: whether the network was trained with a transition matrix. It then predicts the
            true classes, so there is nothing to correct.
        shares: the class shares that it predicts for the training faces, if it was trained on other
            labels than the given ones.
        learnt: these other labels, (M, C). Without them such predictions are not corrected.
        recorded: predictions for the training faces during a training on the given labels, (M, C).
    """
    size = probabilities.shape[1]
    rows, estimate = drawn(given, true, size, seed)
    counts = given.bincount(minlength=size)
    given_shares = counts.clamp(min=1) / counts.clamp(min=1).sum()
    predicted = given_shares.double() if shares is None else shares
    if with_matrix:
        predicted = estimate.shares
    found = {
        name: figures_of(
            adjust_to_shares(probabilities.double(), predicted, estimate.shares, equal=way), targets
        )
        for name, way in TARGETS.items()
    }
    if with_matrix or (shares is not None and learnt is None):
        return found
    if learnt is not None:
        estimate = transition_from_verified(
            true[rows], given[rows], num_classes=size, given_counts=counts, learnt=learnt[rows]
        )
    ways = {"corrected": estimate}
    if recorded is not None:
        ways["choices"] = transition_from_verified(recorded.argmax(1), given, num_classes=size)
    for name, way in ways.items():
        corrected = correct_predictions(probabilities.double(), way.matrix, way.shares)
        found[name] = figures_of(corrected, targets)
    return found


def drawn(given: Tensor, true: Tensor, size: int, seed: int) -> tuple[Tensor, TransitionEstimate]:
    """Return the rows that a run with this seed verifies, and how labels go wrong by them."""
    count = min(VERIFIED, len(given))
    return draw_verified(given, true, count, num_classes=size, seed=seed_of(seed, 0))


def figures_of(probabilities: Tensor, targets: Tensor) -> dict[str, float]:
    """Return the accuracy of predictions (N, C), and the mean-class accuracy."""
    confusion = confusion_matrix(
        probabilities.argmax(1), targets, num_classes=probabilities.shape[1]
    )
    return {
        "accuracy": float(accuracy(confusion)),
        "mean_class_accuracy": float(mean_class_accuracy(confusion)),
    }
