"""Find verified labels, and the transition matrix that says how labels go wrong."""

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
class VerifiedOptions:
    """verified labels

    Args:
        verified: number of training faces with a verified label, for data that has true labels
        verified_draw: stratified (equally many of each given label) or random
        verified_seed: seed of that draw; default: the seed of the run
        decisions: file of a review with robustfer audit, instead of --verified; repeat for each
            reviewer
    """

    verified: NonNegativeInt = 0
    verified_draw: Literal["random", "stratified"] = "stratified"
    verified_seed: NonNegativeInt | None = None
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TransitionOptions(VerifiedOptions):
    """how labels go wrong

    Args:
        transition: how often each class gets each label: none (labels are right), verified (from
            verified labels), file:PATH (csv with a row per true class and a column per given
            label), or predictions:PATH (from predictions for the training set, as for robustfer
            audit)
    """

    transition: str = "none"


@dataclass(frozen=True)
class Verification:
    """The verified labels of a training set.

    Attributes:
        label: labels to train on, (N): the true one if verified, else the given one.
        verified: whether each label is verified, (N).
        estimate: how labels go wrong, from the verified ones. ``None`` without any.
    """

    label: Tensor
    verified: Tensor
    estimate: TransitionEstimate | None


def verify(faces: LabeledFaces, options: VerifiedOptions, *, seed: int) -> Verification:
    """Return the labels to train on, and an estimate of how labels go wrong.

    Raises:
        Refused: labels are not classes, or the data has no true labels.
    """
    given = classes_given(faces)
    if options.decisions:
        if options.verified:
            raise Refused("--decisions and --verified exclude each other; choose one of them")
        found = read_decisions(options.decisions, given, classes=faces.classes, ids=faces.ids)
        rows, true = found.index, found.label
        estimate = found.estimate() if len(found.drawn_index) else None
    elif options.verified:
        if faces.true_targets is None:
            raise Refused(
                f"--verified {options.verified} needs data with true labels; for other data review "
                "labels with robustfer audit, and pass the file with --decisions"
            )
        own = seed if options.verified_seed is None else options.verified_seed
        stratified = options.verified_draw == "stratified"
        if options.verified > len(given):
            raise Refused(
                f"--verified {options.verified} is more than the {len(given)} training images; "
                "choose a smaller number"
            )
        rows, estimate = draw_verified(
            given, faces.true_targets, options.verified, num_classes=len(faces.classes),
            stratified=stratified, seed=seed_of(own, 0),
        )  # fmt: skip
        true = faces.true_targets[rows]
    else:
        return Verification(given, torch.zeros(len(given), dtype=torch.bool), None)
    clear = true >= 0  # an ambiguous face keeps its label
    label, verified = given.clone(), torch.zeros(len(given), dtype=torch.bool)
    label[rows[clear]] = true[clear]
    verified[rows[clear]] = True
    return Verification(label, verified, estimate)


def classes_given(faces: LabeledFaces) -> Tensor:
    """Return the labels (N) of a training set.

    Raises:
        Refused: its labels are probabilities.
    """
    if faces.targets.ndim != 1:
        raise Refused(
            "the data has probabilities as labels, expected one class per image; choose such "
            "labels, for example --reader.labels majority"
        )
    return faces.targets


def draw_verified(
    given: Tensor,
    true: Tensor,
    count: int,
    *,
    num_classes: int,
    seed: int,
    stratified: bool = True,
) -> tuple[Tensor, TransitionEstimate]:
    """Draw labels to verify with known true ones.

    Returns:
        Their rows, and how labels go wrong by them.
    """
    rows = rows_to_verify(given, count, stratified=stratified, seed=seed)
    counts = given.bincount(minlength=num_classes) if stratified else None
    return rows, transition_from_verified(
        true[rows], given[rows], num_classes=num_classes, given_counts=counts
    )


def find_transition(
    source: str, faces: LabeledFaces, estimate: TransitionEstimate | None
) -> Tensor | None:
    """Return the transition matrix, float64 (C, C), a row per true class, or ``None`` for ``none``.

    Raises:
        Refused: the source is unknown, lacks verified labels, or is a file for other data.
    """
    kind, _, path = source.partition(":")
    if source == "none":
        return None
    if source == "verified":
        if estimate is None:
            raise Refused(
                "--transition verified needs verified labels from a random draw; add --verified "
                "100 for data with true labels, or --decisions FILE from a review"
            )
        return estimate.matrix
    if kind not in ("file", "predictions") or not path:
        raise Refused(
            f"--transition must be none, verified, file:PATH or predictions:PATH, got {source}"
        )
    rows, classes, ids, *_ = read_probabilities(path)
    own = tuple(faces.classes)
    size = len(own) if kind == "file" else len(faces)
    if tuple(rows.shape) != (size, len(own)) or (classes or own) != own:
        raise Refused(
            f"--transition {source}: expected {size} rows with the classes {', '.join(own)}, got "
            f"{rows.shape[0]} with {', '.join(classes or [f'{rows.shape[1]} classes'])}"
        )
    if ids is not None and ids != list(own if kind == "file" else faces.ids):
        raise Refused(
            f"--transition {source}: the rows are named {ids[0]}, ..., expected "
            f"{own[0] if kind == 'file' else faces.ids[0]}, ..., in the order of the "
            f"{'classes' if kind == 'file' else 'training images'}"
        )
    return rows.double() if kind == "file" else transition_from_confident_joint(faces.targets, rows)


def prediction_shift(
    shares: Shares,
    strength: float,
    label: Tensor,
    estimate: TransitionEstimate | None,
    *,
    corrected: bool,
    num_classes: int,
) -> Tensor:
    """Return the shift of the logits (C) that changes the class shares of the predictions.

    Args:
        shares: the shares to predict with: true ones (truth), or equal ones (uniform).
        strength: 1 for exactly these shares, less for part of the way. The way to the true shares
            starts at those of the labels. The way to equal shares starts at the true shares, or at
            those of the labels without verified labels.
        label: labels to train on, (N).
        estimate: the estimate from verified labels.
        corrected: whether the network is trained with a transition matrix. It then learns the true
            shares, otherwise those of the labels.
        num_classes: C.

    Raises:
        Refused: the true shares are needed, but no label is verified.
    """
    if shares == "none":
        return torch.zeros(num_classes)
    if estimate is None and (shares == "truth" or corrected):
        raise Refused(
            f"--adjust-to {shares} needs the true shares of the classes; add --verified 100 for "
            "data with true labels, or --decisions FILE from a review"
        )
    given = label.bincount(minlength=num_classes).clamp(min=1).double()
    given = (given / given.sum()).log()
    truth = given if estimate is None else estimate.shares.log()
    learnt = truth if corrected else given
    to_truth = learnt + strength * (truth - learnt)
    asked = to_truth if shares == "truth" else (1 - strength) * truth
    return (asked - learnt).to(torch.get_default_dtype())
