"""Compare lists of noisy labels with the clean labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robustfer.data.classes import renumber
from robustfer.data.dataset import LabeledFaces, check_faces
from robustfer.metrics import confusion_matrix
from robustfer.noise.lists import NoiseList, hard_targets
from robustfer.noise.matching import fitting_order, match_names, numbers_of
from robustfer.noise.report import NoiseReport


def verify_noise_list(
    noisy: NoiseList,
    clean: LabeledFaces | NoiseList,
    *,
    other_splits: Sequence[LabeledFaces] | None = None,
) -> NoiseReport:
    """Compare a list of noisy labels with the clean labels.

    Either can have more folders in front of a name. Labels of other splits must not change: those
    of ``other_splits``, and of RAF-DB's test images. They are not part of the rate.

    Args:
        noisy: the list.
        clean: a data set, or the list of the clean labels.
        other_splits: the other splits of the data set. If given, a test image of RAF-DB that is in
            none of them is a problem.

    Returns:
        The rate and the matrix for the common names. Problems are missing names, changed labels of
        other splits, and another order of the classes in which clearly more labels agree.
    """
    rows = match_names(noisy.path, noisy.ids, clean.ids)
    given = renumber(noisy.targets, source=noisy.classes, target=clean.classes)
    true = hard_targets(clean)[rows.clamp(min=0)]
    known, of_others = rows >= 0, _of_rafdb_test(noisy.ids, clean.ids)
    compared = known & ~of_others
    checked, changed = known & of_others, known & of_others & (given != true)
    for split in other_splits or ():
        places, others = _labels_of(split, noisy)
        more = (places >= 0) & ~known & ~checked
        checked, changed = checked | more, changed | (more & (noisy.targets != others))
    of_others |= checked
    if not bool(compared.any()):
        raise ValueError(
            f"{noisy.path} shares no name with the clean labels: it has {noisy.ids[0]!r}, they "
            f"have {clean.ids[0]!r}; choose the clean labels of this list"
        )
    counts = confusion_matrix(given[compared], true[compared], num_classes=len(clean.classes))
    report = NoiseReport(classes=tuple(clean.classes), counts=counts)
    notes = [f"the list counts from {noisy.base} and has {noisy.names} names"]
    if bool(of_others.any()):
        notes.append(
            f"images of other splits, not counted above: {int(of_others.sum())}, "
            f"compared: {int(checked.sum())}"
        )

    problems: list[str] = []

    def report_any(wrong: Tensor, names: Sequence[str], what: str) -> None:
        if bool(wrong.any()):
            first = names[int(wrong.to(torch.int8).argmax())]
            problems.append(f"{int(wrong.sum())} {what}, like {first!r}")

    report_any(changed, noisy.ids, "labels of images of other splits differ from the clean ones")
    if other_splits is not None:
        unseen = of_others & ~checked
        report_any(unseen, noisy.ids, "test images have no clean label to compare with")
    report_any(~known & ~of_others, noisy.ids, "names are not among the clean ones")
    lacking = ~_of_rafdb_test(clean.ids, clean.ids)
    lacking[rows[known]] = False
    report_any(lacking, clean.ids, "clean names are missing from the list")
    better = fitting_order(
        (noisy.targets + noisy.base)[compared],
        true[compared],
        clean.classes,
        read=(noisy.classes, noisy.base),
    )
    if better is not None:
        problems.append(
            f"{report.rate:.1%} of the labels differ: the list may have another order of the "
            f"classes. {better.hint()}"
        )
    elif report.rate > 0.5:
        notes.append("more than half of the labels differ, and no known order of the classes fits")
    by_chance = float((counts.sum(0) / report.samples) @ (counts.sum(1) / report.samples))
    if 1 - report.rate <= by_chance:
        notes.append("the labels do not agree more often than by chance")
    return replace(report, notes=tuple(notes), problems=tuple(problems))


def _labels_of(split: LabeledFaces, noisy: NoiseList) -> tuple[Tensor, Tensor]:
    """Return the row of each name of a list in a split, and its label there by the list's order."""
    check_faces(split)
    places = match_names(noisy.path, noisy.ids, split.ids)
    labels = hard_targets(split)[places.clamp(min=0)]
    return places, numbers_of(split.classes, noisy.classes)[labels]


def _of_rafdb_test(names: Sequence[str], clean_names: Sequence[str]) -> Tensor:
    """Return which names are RAF-DB's test images, if the clean names are of RAF-DB."""
    of_rafdb = any(name.rpartition("/")[2].startswith("train_") for name in clean_names)
    test = [of_rafdb and name.rpartition("/")[2].startswith("test_") for name in names]
    return torch.tensor(test, device="cpu")
