"""Correct the predictions of a run by a review of the labels that it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from examples.train.options import DataOptions, Refused
from examples.train.recording import DYNAMICS, FINAL, LEARNT
from examples.train.run_folder import AVERAGE, RECORD
from examples.train.trained import Trained
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
        Refused: the run learnt to predict true labels, or kept no record. Or its predictions do not
            have the class shares of its labels. Or it changed labels, but not those of the review.
        ValueError: the review is of other labels, or has no face of a random draw.
    """
    if not decisions:
        return lambda probability: probability
    folder = _recorded(trained)
    learnt = _learnt(trained, folder / FINAL)
    _check_shares(trained)
    _, classes, ids, given, _ = read_probabilities(folder)
    if given is None or classes is None or ids is None:
        raise Refused(
            f"--decisions needs a record with classes, names and labels, got {folder / DYNAMICS} "
            "without them; train again"
        )
    found = read_decisions(decisions, given, classes=classes, ids=ids)
    changed = learnt.ndim == 2 or not torch.equal(learnt, given)
    if learnt.ndim == 1 and changed:
        told = [name for name in ("decisions", "verified") if trained.settings.get(name)]
        if told:
            raise Refused(
                f"--decisions: the run {trained.path} changed labels, but kept those of its "
                f"--{told[0]}, so these cannot tell how the changed ones go wrong; leave "
                "--decisions out here, or train again without it"
            )
        learnt = F.one_hot(learnt, len(classes)).double()
    estimate = found.estimate(learnt=learnt if changed else None)
    return lambda probability: correct_predictions(probability, estimate.matrix, estimate.shares)


def _check_shares(trained: Trained) -> None:
    """Refuse a run that saw some labels more often, or heavier, than the data has them.

    Its predictions have other class shares than its labels, so their matrix does not fit.
    """
    data = trained.group(DataOptions)
    usual = {"sampling": "shuffled", "class_weights": "none"}
    for name, value in usual.items():
        own = getattr(data, name)
        if own != value:
            option = f"--{name.replace('_', '-')}"
            raise Refused(
                f"--decisions needs predictions with the class shares of the labels, but the run "
                f"{trained.path} was trained with {option} {own}; leave --decisions out, or train "
                f"again with {option} {value}"
            )


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
