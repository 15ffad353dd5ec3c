"""Lists of noisy labels held against the clean ones: do they belong together, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from robustfer.data.classes import NUMBERINGS, class_order, renumber
from robustfer.data.confusions import confusion_counts
from robustfer.data.dataset import LabeledFaces
from robustfer.data.noise_lists import NoiseList, hard_targets, last_part, match_names
from robustfer.data.noise_report import NoiseReport


def verify_noise_list(noisy: NoiseList, clean: LabeledFaces | NoiseList) -> NoiseReport:
    """Hold a list of noisy labels against the clean ones.

    The names may have folders before them on either side. Of RAF-DB's test images, whose labels
    must stay as they are, only what changed is reported.

    Args:
        noisy: the list.
        clean: a data set, or the list of the clean labels.

    Returns:
        The rate and the matrix of what both have; as problems: names of one that the other lacks,
        test labels that changed, and more than half of the labels differing.

    Raises:
        ValueError: no name of one is a name of the other, or their classes differ.
    """
    rows = match_names(noisy, clean.ids)
    given = renumber(noisy.targets, source=noisy.classes, target=clean.classes)
    true = hard_targets(clean)[rows.clamp(min=0)]
    known, held_out = rows >= 0, _held_out(noisy.ids)
    compared = known & ~held_out
    if not bool(compared.any()):
        raise ValueError(
            f"{noisy.path} shares no name with the clean labels: it has {noisy.ids[0]!r}, they "
            f"have {clean.ids[0]!r}"
        )
    counts = confusion_counts(given[compared], true[compared], num_classes=len(clean.classes))
    notes = [f"the list counts from {noisy.base} and has {noisy.names} names"]
    if bool(held_out.any()):
        both = int((known & held_out).sum())
        notes.append(f"test images, not counted above: {int(held_out.sum())}, compared: {both}")

    problems: list[str] = []
    changed_test = int((known & held_out & (given != true)).sum())
    if changed_test:
        problems.append(f"{changed_test} labels of test images differ from the clean ones")
    strange = [noisy.ids[row] for row in (~known & ~held_out).nonzero()[:, 0].tolist()]
    if strange:
        problems.append(f"{len(strange)} names are not among the clean ones, like {strange[0]}")
    there = torch.zeros(len(clean.ids), dtype=torch.bool)
    there[rows[known]] = True
    lacking = [clean.ids[row] for row in (~there & ~_held_out(clean.ids)).nonzero()[:, 0].tolist()]
    if lacking:
        problems.append(f"{len(lacking)} clean names are missing from the list, like {lacking[0]}")
    report = NoiseReport(classes=tuple(clean.classes), counts=counts, notes=tuple(notes))
    if report.rate > 0.5:
        hint = _better_order(noisy, clean, rows, compared)
        problems.append(f"more than half of the labels differ: another order of the classes?{hint}")
    return replace(report, problems=tuple(problems))


def _held_out(names: Sequence[str]) -> Tensor:
    """Where the names are RAF-DB's test images, which stand beside its training images."""
    last = [last_part(name) for name in names]
    of_rafdb = any(name.startswith("train_") for name in last)
    return torch.tensor([of_rafdb and name.startswith("test_") for name in last])


class _Best(NamedTuple):
    rate: float
    order: str
    base: int


def _better_order(
    noisy: NoiseList, clean: LabeledFaces | NoiseList, rows: Tensor, compared: Tensor
) -> str:
    """Which known order of the classes would make most labels agree."""
    numbers, true = noisy.targets[compared], hard_targets(clean)[rows[compared]]
    best = _Best(0.5, "", 0)
    for name in NUMBERINGS:
        order = class_order(name)
        if not set(clean.classes) <= set(order):
            continue
        places = torch.tensor([order.index(label) for label in clean.classes])
        for base in (0, 1):
            shifted = numbers + noisy.base - base
            rate = float((shifted != places[true]).double().mean())
            if rate < best.rate:
                best = _Best(rate, name, base)
    if not best.order:
        return ""
    return f" In that of {best.order}, counted from {best.base}, {best.rate:.1%} differ."
