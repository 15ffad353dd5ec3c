"""Your own images, listed in a csv file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from robustfer._checks import warn_if_normalized
from robustfer.data.classes import (
    EXPRESSIONS,
    EXPRESSIONS_WITH_CONTEMPT,
    NUMBERINGS,
    class_name,
    class_order,
    classes_of,
    numbering,
)
from robustfer.data.dataset import LabeledFaces
from robustfer.data.images import ImageFiles
from robustfer.data.tables import (
    SPLITS,
    Duplicates,
    NamedOnce,
    check_files,
    check_inside,
    read_table,
    read_whole_number,
)
from robustfer.data.votes import VoteRule, judge


class LabelTable(LabeledFaces):
    r"""Images and labels by a csv file with columns ``path`` and ``label``.

    Further columns that are understood:

    - ``split``: ``train``, ``validation`` or ``test``.
    - ``votes``: how many people saw each class, in the order of ``classes``: ``"7;0;3"``.
    - ``landmarks``: ``"x;y;x;y;..."`` in pixels of the file; an empty cell: not known.

    A label is a name, for an expression also a synonym ("happy", "Joy"). Numbers mean something
    else in every data set, so they are refused unless ``numbers`` says what they mean. Where all
    labels of the table are expressions the classes are robustfer's, in their usual order; else the
    sorted labels. ``ids`` are the paths as the table has them.

    Args:
        table: the csv file.
        root: the folder that the paths start from; default: the table's own.
        split: which rows; ``None`` for all of them, where the table has no column ``split``.
        labels: ``"label"`` for the column, or the rule that makes a label of the votes, as in
            :class:`robustfer.data.FERPlus`; rows that are too divided are left out.
        classes: names of the classes, or a data set of :data:`robustfer.data.NUMBERINGS` for its
            order; a label that is none of them is an error.
        numbers: what numbers in ``label`` mean: a data set of
            :data:`robustfer.data.NUMBERINGS`, or ``"classes"`` for positions in ``classes``.
        size: side of the square to resize to, in pixels; ``None``: all images are of one size.
            Faces should be cropped before.
        duplicates: ``"error"``, or ``"drop"`` to count an image once that is named again in the
            same words.
        in_memory: read all images now (3 * H * W bytes each) and none later.

    Raises:
        FileNotFoundError: the table or an image is not there.
        ValueError: an option or the table is not as described; the message names file and line.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = Path(root, "faces.csv").write_text("path,label\na.png,happy\nb.png,Angry\n")
    ...     for name in ("a.png", "b.png"):
    ...         Image.new("L", (48, 48)).save(Path(root, name))
    ...     faces = LabelTable(Path(root, "faces.csv"), in_memory=True)
    >>> [faces.classes[target] for target in faces.targets]
    ['happiness', 'anger']
    """

    def __init__(
        self,
        table: str | Path,
        *,
        root: str | Path | None = None,
        split: Literal["train", "validation", "test"] | None = None,
        labels: Literal["label"] | VoteRule = "label",
        classes: str | Sequence[str] | None = None,
        numbers: str | None = None,
        size: int | None = None,
        duplicates: Duplicates = "error",
        in_memory: bool = False,
    ) -> None:
        table = Path(table).expanduser()
        root = table.parent if root is None else Path(root).expanduser()
        if split not in (None, *SPLITS):
            raise ValueError(f"split must be None or one of {', '.join(SPLITS)}, got {split!r}")
        if labels not in ("label", *get_args(VoteRule)):
            rules = ", ".join(get_args(VoteRule))
            raise ValueError(f"labels must be label or one of {rules}, got {labels!r}")
        rows, excluded = _read_rows(table, labels, split, duplicates)
        names, order = _names_and_classes(table, rows, labels, classes, numbers)
        chosen = [row for row in rows if split is None or row.split == split]
        if not chosen:
            raise ValueError(f"{table} names no image{f' of the split {split}' if split else ''}")

        votes = _votes(table, chosen, len(order))
        if labels == "label":
            targets = torch.tensor([order.index(names[row.label]) for row in chosen])
        else:
            assert votes is not None  # _read_rows has asked for the column
            shares, leader = judge(votes, num_classes=len(order), rule=labels)
            kept = leader >= 0
            if not bool(kept.any()):
                raise ValueError(f"{table}: the votes are too divided for {labels!r} in every row")
            excluded["with votes too divided"] = int((~kept).sum())
            targets, votes = (leader if labels == "majority" else shares)[kept], votes[kept]
            chosen = [row for row, keep in zip(chosen, kept.tolist(), strict=True) if keep]
        check_files(table, root, ((row.line, row.path) for row in chosen))
        ids = [row.path for row in chosen]
        super().__init__(classes=order, ids=ids, targets=targets, votes=votes, excluded=+excluded)
        self._points = _points(table, chosen)
        self._images = ImageFiles(root, ids, size=size, in_memory=in_memory)

    def load_image(self, row: int) -> Tensor:
        """Image of a row of the whole split, uint8 (3, H, W)."""
        return self._images[row]

    def landmarks(self, row: int) -> Tensor:
        """Points (x, y) of a row of the whole split, in pixels of its image, NaN where not known.

        Shape:
            float32 (K, 2)

        Raises:
            ValueError: the table has no landmarks.
        """
        if self._points is None:
            raise ValueError("the table has no column landmarks")
        return self._images.place(row, self._points[row])


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str
    votes: str | None
    landmarks: str | None


def _read_rows(
    table: Path, labels: str, split: str | None, duplicates: Duplicates
) -> tuple[list[_Row], Counter[str]]:
    needed = ["path", "label" if labels == "label" else "votes", *(["split"] if split else [])]
    names, excluded = NamedOnce(table, duplicates), Counter[str]()
    rows: list[_Row] = []
    for line, cells in read_table(table, needed):
        if split is None and "split" in cells:
            raise ValueError(f"{table} has a column split; say which rows with split=")
        row = _Row(
            line,
            check_inside(table, line, cells["path"]),
            cells.get("label", ""),
            _split(table, line, cells["split"]) if split else "",
            cells.get("votes"),
            cells.get("landmarks"),
        )
        if names.is_new(line, row.path, row[1:]):
            rows.append(row)
        else:
            excluded["named again in the same words"] += 1
    return rows, excluded


def _split(table: Path, line: int, text: str) -> str:
    for split, names in SPLITS.items():
        if text.lower() in names:
            return split
    raise ValueError(f"{table}, line {line}: split must be one of {', '.join(SPLITS)}: {text!r}")


def _names_and_classes(
    table: Path,
    rows: Sequence[_Row],
    labels: str,
    classes: str | Sequence[str] | None,
    numbers: str | None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The class that each label stands for, and the classes in order."""
    order = None if classes is None else class_order(classes)
    if labels != "label":
        if order is None:
            count = len(_numbers(rows[0].votes or "")) if rows else 0
            known = {7: EXPRESSIONS, 8: EXPRESSIONS_WITH_CONTEMPT}
            if count not in known:
                raise ValueError(f"{table}: votes for {count} columns need classes=, their names")
            order = known[count]
        return {}, order
    codes: Mapping[int, str] | None = None
    if numbers == "classes":
        if order is None:
            raise ValueError("numbers='classes' needs classes=, the names that are counted")
        codes = dict(enumerate(order))
    elif numbers is not None:
        codes = numbering(numbers)
    names: dict[str, str] = {}
    for row in rows:
        if row.label not in names:
            names[row.label] = _name(table, row, codes, order)
    return names, order or classes_of(names.values())


def _name(
    table: Path, row: _Row, codes: Mapping[int, str] | None, order: Sequence[str] | None
) -> str:
    where = f"{table}, line {row.line}"
    name = class_name(row.label)
    if row.label.isascii() and row.label.isdigit():
        if codes is None:
            raise ValueError(
                f"{where}: label is the number {row.label}, which means something else in every "
                f"data set; say what with numbers=, one of {', '.join(NUMBERINGS)} or classes"
            )
        if int(row.label) not in codes:
            raise ValueError(
                f"{where}: label must lie in {min(codes)} to {max(codes)}, got {row.label}"
            )
        name = codes[int(row.label)]
    if not name:
        raise ValueError(f"{where}: label is empty")
    if order is not None and name not in order:
        near = get_close_matches(name, order, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}: label {row.label!r} is none of {', '.join(order)}{hint}")
    return name


def _votes(table: Path, rows: Sequence[_Row], num_classes: int) -> Tensor | None:
    if not rows or rows[0].votes is None:
        return None
    votes = torch.zeros(len(rows), num_classes, dtype=torch.int64)
    for place, row in enumerate(rows):
        cells = _numbers(row.votes or "")
        if not cells:
            continue
        if len(cells) != num_classes:
            raise ValueError(
                f"{table}, line {row.line}: votes must be {num_classes} numbers, got {row.votes!r}"
            )
        counts = [read_whole_number(table, row.line, "a vote", cell) for cell in cells]
        votes[place] = torch.tensor(counts)
    return votes


def _points(table: Path, rows: Sequence[_Row]) -> Tensor | None:
    known = {place: _numbers(row.landmarks) for place, row in enumerate(rows) if row.landmarks}
    if not known:
        return None
    count = len(next(iter(known.values())))
    points = torch.full((len(rows), count), torch.nan)
    for place, cells in known.items():
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            values = []
        if len(values) != count or count % 2 or not all(map(math.isfinite, values)):
            raise ValueError(
                f"{table}, line {rows[place].line}: landmarks must be x;y;x;y;..., as many as in "
                f"the other rows, got {rows[place].landmarks!r}"
            )
        points[place] = torch.tensor(values)
    warn_if_normalized(points, f"landmarks of {table}")
    return points.view(len(rows), -1, 2)


def _numbers(text: str) -> list[str]:
    return text.replace(";", " ").split()
