"""What a hundred verified labels are worth after training: predictions with other class shares.

A network that was trained on the given labels predicts their shares of the classes. Verified labels
tell the true shares, so its predictions can be put right without any training (see
``robustfer.metrics.adjust_to_shares``). What uses verified labels in training must do better.
"""

from __future__ import annotations

from torch import Tensor

from examples.train.data import seed_of
from robustfer.data import LabeledFaces
from robustfer.metrics import accuracy, adjust_to_shares, confusion_matrix, mean_class_accuracy
from robustfer.noise import rows_to_verify, transition_from_verified

VERIFIED = 100
# Part of the way from the true shares to classes that are all equally frequent.
TARGETS = {"truth": 0.0, "half": 0.5}


def adjusted_figures(
    probabilities: Tensor, targets: Tensor, train_set: LabeledFaces, *, seed: int, corrected: bool
) -> dict[str, dict[str, float]]:
    """Accuracy of predictions with the shares that a hundred verified training labels tell.

    Args:
        probabilities: predictions of the judged faces, (N, C).
        targets: their true classes, (N).
        train_set: with given and true labels.
        seed: of the run, which decides which labels are verified.
        corrected: the network was trained with a transition matrix, so it predicts the true shares.
    """
    given, true = train_set.targets, train_set.true_targets
    assert true is not None
    rows = rows_to_verify(given, min(VERIFIED, len(given)), seed=seed_of(seed, 0))
    size = probabilities.shape[1]
    counts = given.bincount(minlength=size)
    estimate = transition_from_verified(
        true[rows], given[rows], num_classes=size, given_counts=counts
    )
    given_shares = counts.clamp(min=1) / counts.clamp(min=1).sum()
    learnt = estimate.shares if corrected else given_shares.double()
    found = {}
    for name, way in TARGETS.items():
        moved = adjust_to_shares(probabilities.double(), learnt, estimate.shares, equal=way)
        confusion = confusion_matrix(moved.argmax(1), targets, num_classes=size)
        found[name] = {
            "accuracy": float(accuracy(confusion)),
            "mean_class_accuracy": float(mean_class_accuracy(confusion)),
        }
    return found
