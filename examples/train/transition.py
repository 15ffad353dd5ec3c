"""Labels that a person verified, and how labels go wrong: the transition matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from examples.train.data import seed_of
from examples.train.options import NonNegativeInt, Refused
from robustfer.audit import read_decisions, read_probabilities
from robustfer.data import LabeledFaces
from robustfer.noise import (
    TransitionEstimate,
    rows_to_verify,
    transition_from_confident_joint,
    transition_from_verified,
)

Shares = Literal["none", "truth", "uniform"]


@dataclass(frozen=True)
class TransitionOptions:
    """how labels go wrong

    Args:
        transition: how often each class is given each label: none (labels are right), verified (as
            the verified labels say), file:PATH (csv with a column per given label and a row per
            true class), or predictions:PATH (of the training set, as robustfer audit reads them)
        verified: so many training faces are verified: their true labels are known
        verified_draw: as many of each given label (stratified), or without regard to it (random)
        verified_seed: of that draw; default: the seed of the run
        decisions: file of a review by robustfer audit, repeated for each reviewer, instead of
            --verified
    """

    transition: str = "none"
    verified: NonNegativeInt = 0
    verified_draw: Literal["random", "stratified"] = "stratified"
    verified_seed: NonNegativeInt | None = None
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verification:
    """What is known of the labels of a training set.

    Attributes:
        label: what to train on, (N): the true label where it is verified, else the given one.
        verified: where the label is verified, (N).
        estimate: how labels go wrong, as the verified ones say; ``None`` without any.
    """

    label: Tensor
    verified: Tensor
    estimate: TransitionEstimate | None


def verify(faces: LabeledFaces, options: TransitionOptions, *, seed: int) -> Verification:
    """Return the labels to train on, and what the verified ones say of the others.

    Raises:
        Refused: the data has no classes as labels, or no true labels to verify by.
    """
    given = faces.targets
    if given.ndim != 1:
        raise Refused(
            "this method needs one class per image, the data has probabilities as labels; choose "
            "other labels of the reader, say --reader.labels majority"
        )
    if options.decisions:
        if options.verified:
            raise Refused("--decisions and --verified exclude each other; choose one of them")
        found = read_decisions(options.decisions, given, classes=faces.classes, ids=faces.ids)
        rows, true = found.index, found.label
        estimate = found.estimate() if len(found.drawn_index) else None
    elif options.verified:
        if faces.true_targets is None:
            raise Refused(
                f"--verified {options.verified} needs data that knows true labels; for your own "
                "use robustfer audit, and --decisions with the file of the review"
            )
        own = seed if options.verified_seed is None else options.verified_seed
        stratified = options.verified_draw == "stratified"
        if options.verified > len(given):
            raise Refused(
                f"--verified {options.verified} is more than the {len(given)} training images"
            )
        rows = rows_to_verify(given, options.verified, stratified=stratified, seed=seed_of(own, 0))
        true, classes = faces.true_targets[rows], len(faces.classes)
        estimate = transition_from_verified(
            true, given[rows], num_classes=classes,
            given_counts=given.bincount(minlength=classes) if stratified else None,
        )  # fmt: skip
    else:
        return Verification(given, torch.zeros(len(given), dtype=torch.bool), None)
    clear = true >= 0  # an ambiguous face keeps its label
    label, verified = given.clone(), torch.zeros(len(given), dtype=torch.bool)
    label[rows[clear]] = true[clear]
    verified[rows[clear]] = True
    return Verification(label, verified, estimate)


def find_transition(
    source: str, faces: LabeledFaces, estimate: TransitionEstimate | None
) -> Tensor | None:
    """Return the transition matrix, float64 (C, C), a row per true class; ``None`` for ``none``.

    Raises:
        Refused: an unknown source, one that needs verified labels, or a file of other classes.
    """
    kind, _, path = source.partition(":")
    if source == "none":
        return None
    if source == "verified":
        if estimate is None:
            raise Refused(
                "--transition verified needs verified labels drawn at random: --verified 100 for "
                "data that knows true labels, or --decisions FILE of a review"
            )
        return estimate.matrix
    if kind not in ("file", "predictions") or not path:
        raise Refused(
            f"--transition must be none, verified, file:PATH or predictions:PATH, got {source}"
        )
    rows, classes, ids, _ = read_probabilities(path)
    own = tuple(faces.classes)
    size = len(own) if kind == "file" else len(faces)
    if tuple(rows.shape) != (size, len(own)) or (classes or own) != own:
        raise Refused(
            f"--transition {source}: expected {size} rows with the classes {', '.join(own)}, got "
            f"{rows.shape[0]} with {', '.join(classes or [f'{rows.shape[1]} classes'])}"
        )
    if ids is not None and ids != list(own if kind == "file" else faces.ids):
        raise Refused(
            f"--transition {source}: the rows are named {ids[0]}, ...; expected "
            f"{own[0] if kind == 'file' else faces.ids[0]}, ... in the order of the "
            f"{'classes' if kind == 'file' else 'training images'}"
        )
    return rows.double() if kind == "file" else transition_from_confident_joint(rows, faces.targets)


def prediction_shift(
    shares: Shares,
    strength: float,
    label: Tensor,
    estimate: TransitionEstimate | None,
    *,
    corrected: bool,
    num_classes: int,
) -> Tensor:
    """Return what to add to logits (C) for predictions with other shares of the classes.

    Args:
        shares: those of the truth, or the same of each class (uniform).
        strength: 1 for these very shares, less for part of the way: to the truth from the shares of
            the labels; to equal shares from the truth, or from the labels if nothing is verified.
        label: what is trained on, (N).
        estimate: what the verified labels say.
        corrected: the network is trained with a transition matrix, so it learns the shares of the
            truth; else it learns those of the labels.
        num_classes: C.

    Raises:
        Refused: the shares of the truth are needed, and there are no verified labels.
    """
    if shares == "none":
        return torch.zeros(num_classes)
    if estimate is None and (shares == "truth" or corrected):
        raise Refused(
            f"--adjust-to {shares} needs the true shares of the classes: --verified 100 for data "
            "that knows true labels, or --decisions FILE of a review"
        )
    given = label.bincount(minlength=num_classes).clamp(min=1).double()
    given = (given / given.sum()).log()
    truth = given if estimate is None else estimate.shares.log()
    learnt = truth if corrected else given
    to_truth = learnt + strength * (truth - learnt)
    asked = to_truth if shares == "truth" else (1 - strength) * truth
    return (asked - learnt).to(torch.get_default_dtype())
