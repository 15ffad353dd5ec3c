"""Read and merge people's decisions about labels, and estimate how labels go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer import _shown
from robustfer._checks import check_shapes, check_whole_number
from robustfer._files import no_formula
from robustfer._inputs import check_ids, to_labels, to_probabilities
from robustfer._tables import NamedOnce, read_table
from robustfer.noise import TransitionEstimate, fingerprint, transition_from_verified

#: The columns of a file of decisions.
COLUMNS = ("audit", "part", "id", "label")

#: Parts of a review. Only those drawn at random show how labels go wrong.
PARTS = ("random", "stratified", "suspects", "duplicates")
_DRAWN = ("random", "stratified")

#: The decision for a face without a single right label.
AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, eq=False)
class Decisions:
    """People's decisions about samples of a data set.

    Attributes:
        index: rows of the reviewed samples, each once, ascending, ``(M)`` int64.
        label: decided labels, ``(M)`` int64. -1: ambiguous, or people disagree.
        given: their labels in the data set, ``(M)`` int64.
        drawn_index: rows that were drawn at random and labelled blind, ascending, ``(D)`` int64.
        drawn_label: their blind labels, ``(D)`` int64. -1 as above.
        drawn_given: their labels in the data set, ``(D)`` int64.
        given_counts: samples of each given label in the whole data set, ``(C)`` int64.
        stratified: whether rows were drawn by their given label.
        fingerprint: fingerprint of the reviewed labels.
    """

    index: Tensor
    label: Tensor
    given: Tensor
    drawn_index: Tensor
    drawn_label: Tensor
    drawn_given: Tensor
    given_counts: Tensor
    stratified: bool
    fingerprint: str

    def estimate(
        self, *, learnt: Tensor | ArrayLike | None = None, level: float = 0.95
    ) -> TransitionEstimate:
        """Estimate how labels go wrong, from the samples drawn at random and labelled blind.

        Args:
            learnt: the labels of the whole data set that a network learnt instead of the given
                ones, as probabilities ``(N, C)``, to estimate how these go wrong.
            level: probability of the credible intervals.

        Raises:
            TypeError: ``learnt`` are not numbers.
            ValueError: no sample was drawn at random, or ``learnt`` does not fit.
        """
        if not len(self.drawn_index):
            raise ValueError(
                f"decisions must have samples of a random draw, got none among {len(self.index)}; "
                "label the random faces of the review too"
            )
        if learnt is not None:
            rows = to_probabilities("learnt", learnt)
            check_shapes(learnt=(rows, f"{int(self.given_counts.sum())} {len(self.given_counts)}"))
            learnt = rows[self.drawn_index]
        return transition_from_verified(
            self.drawn_label,
            self.drawn_given,
            num_classes=len(self.given_counts),
            given_counts=self.given_counts if self.stratified else None,
            learnt=learnt,
            level=level,
        )


def read_decisions(
    paths: str | Path | Sequence[str | Path],
    given: Tensor | ArrayLike,
    *,
    classes: Sequence[str],
    ids: Sequence[str],
) -> Decisions:
    r"""Read the decisions of one or several reviewers, and merge them.

    A file is a csv table with the columns ``audit`` (fingerprint of the reviewed labels), ``part``
    (``random``, ``stratified``, ``suspects`` or ``duplicates``), ``id`` and ``label`` (a class, or
    ``ambiguous``). A sample is ambiguous if one reviewer says so, or if reviewers disagree.

    Args:
        paths: the file of a reviewer, or several.
        given: the labels in the data set.
        classes: names of the classes.
        ids: names of the samples.

    Shape:
        given integers ``(N)``.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: the decisions are about other labels, a name is unknown, or a table has a
            mistake. The message names file and line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "anna.csv")
    ...     mark = fingerprint(["a.png", "b.png"], torch.tensor([0, 1]), ["sad", "glad"])
    ...     lines = ["audit,part,id,label", f"{mark},random,b.png,sad"]
    ...     _ = path.write_text("\n".join(lines))
    ...     found = read_decisions(path, [0, 1], classes=["sad", "glad"], ids=["a.png", "b.png"])
    >>> found.index, found.label, found.given
    (tensor([1]), tensor([0]), tensor([1]))
    """
    classes = check_ids(classes, name="classes", unique=True)
    num_classes = check_whole_number("the number of classes", len(classes), 2)
    labels = to_labels("given", given, num_classes=num_classes)
    names = check_ids(ids, count=len(labels))
    rows = rows_in_file("ids", names)
    mark = fingerprint(names, labels, classes)
    given_paths = [paths] if isinstance(paths, (str, Path)) else paths
    files = [Path(path).expanduser() for path in given_paths]
    if not files:
        raise ValueError("paths must have at least one file of decisions, got none")
    said: dict[int, set[int]] = {}
    blind: dict[int, set[int]] = {}
    parts: set[str] = set()
    for path in files:
        for part, row, choice in _read(path, mark, rows, list(classes)):
            parts.add(part)
            said.setdefault(row, set()).add(choice)
            if part in _DRAWN:
                blind.setdefault(row, set()).add(choice)
    index, label = _agreed(said)
    drawn_index, drawn_label = _agreed(blind)
    return Decisions(
        index=index,
        label=label,
        given=labels[index],
        drawn_index=drawn_index,
        drawn_label=drawn_label,
        drawn_given=labels[drawn_index],
        given_counts=labels.bincount(minlength=num_classes),
        stratified="stratified" in parts,
        fingerprint=mark,
    )


def rows_in_file(argument: str, names: Sequence[str]) -> dict[str, int]:
    """Return the row of each name as a file of decisions has it, or raise if two are the same."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        other = rows.setdefault(no_formula(name).strip(), row)
        if other != row:
            raise ValueError(
                f"{argument} {names[other]!r} and {name!r} are one name in a file of decisions; "
                "rename one"
            )
    return rows


def _read(
    path: Path, mark: str, rows: dict[str, int], classes: list[str]
) -> Iterable[tuple[str, int, int]]:
    known = rows_in_file("classes", classes)
    if AMBIGUOUS not in known:
        known[AMBIGUOUS] = -1
    once = NamedOnce(path)
    for line, row in read_table(path, COLUMNS):
        where = f"{path}, line {line}"
        if row["audit"] != mark:
            raise ValueError(
                f"{where}: the decisions are about labels with the fingerprint "
                f"{_shown.value(row['audit'])}, expected {mark!r}; read them with the data set, "
                "split and label noise that were reviewed"
            )
        if row["part"] not in PARTS:
            raise ValueError(
                f"{where}: part must be one of {', '.join(PARTS)}, got {_shown.value(row['part'])}"
            )
        if row["id"] not in rows:
            raise ValueError(
                f"{where}: id must be that of a sample, got {_shown.value(row['id'])}; do not "
                "edit ids"
            )
        if row["label"] not in known:
            raise ValueError(
                f"{where}: label must be {AMBIGUOUS} or one of {', '.join(classes)}, got "
                f"{_shown.value(row['label'])}"
            )
        once.is_new(line, f"{row['id']} ({row['part']})", row["label"])
        yield row["part"], rows[row["id"]], known[row["label"]]


def _agreed(said: dict[int, set[int]]) -> tuple[Tensor, Tensor]:
    """Return the rows in order, and the label that all agree on, or -1."""
    index = sorted(said)
    labels = [min(said[row]) if len(said[row]) == 1 else -1 for row in index]
    return (
        torch.tensor(index, dtype=torch.int64, device="cpu"),
        torch.tensor(labels, dtype=torch.int64, device="cpu"),
    )
