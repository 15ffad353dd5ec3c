"""Correct the predictions of a run by a review of the labels that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from examples.train.data import read_faces_to_train
from examples.train.options import DataOptions, NoiseOptions, Refused
from examples.train.recording import FINAL, LEARNT
from examples.train.run_folder import AVERAGE, RECORD
from examples.train.trained import Trained
from examples.train.transition import classes_given
from robustfer.audit import read_decisions, read_probabilities
from robustfer.metrics import correct_predictions


def correction(trained: Trained, decisions: list[str]) -> Callable[[Tensor], Tensor]:
    """Return a function that corrects probabilities (N, C).

    The review tells how the labels go wrong that the network learnt. A second training learnt the
    labels that the first one corrected, so its matrix is theirs.

    Args:
        trained: the run.
        decisions: files of the review of its training labels. Without any, nothing is corrected.

    Raises:
        Refused: the run learnt to predict true labels, kept no record, or its training set changed.
        ValueError: the review is of other labels, or has no face of a random draw.
    """
    if not decisions:
        return lambda probability: probability
    folder = _recorded(trained)
    learnt, record = _learnt(trained, folder / FINAL), read_probabilities(folder)
    seed = trained.settings["seed"]
    faces = read_faces_to_train(trained.group(DataOptions), trained.group(NoiseOptions), seed=seed)
    given = classes_given(faces)
    if (
        record.given is None
        or not torch.equal(record.given, given)
        or record.ids not in (None, list(faces.ids))
        or record.classes not in (None, faces.classes)
    ):
        raise Refused(
            "--decisions: the labels of the training set are no longer those of the run "
            f"{trained.path}; restore them, or train again"
        )
    found = read_decisions(decisions, given, classes=faces.classes, ids=faces.ids)
    estimate = found.estimate(learnt=learnt if learnt.ndim == 2 else None)
    return lambda probability: correct_predictions(probability, estimate.matrix, estimate.shares)


def _recorded(trained: Trained) -> Path:
    """Return the folder with the record of a run."""
    folder = trained.path.resolve()
    # The folder of averaged weights has no record. A run can have the same name.
    averaged = folder.name == AVERAGE and not (folder / RECORD).is_file()
    return folder.parent if averaged else folder


def _learnt(trained: Trained, path: Path) -> Tensor:
    """Return the labels that a run learnt to predict."""
    if not path.is_file():
        raise Refused(f"--decisions needs {path}; train again without --dynamics false")
    try:
        learnt = load_file(path).get(LEARNT)
    except SafetensorError as error:
        raise Refused(f"{path} is damaged: {error}; finish the run with --resume") from error
    if learnt is None:
        raise Refused(
            f"--decisions: the run {trained.path} learnt to predict true labels, so there is "
            "nothing to correct; leave it out"
        )
    return learnt
