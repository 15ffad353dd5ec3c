"""Read your own images from a list in a csv file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from robustfer import _shown
from robustfer._checks import check_choice, warn_if_normalized
from robustfer._tables import Duplicates, NamedOnce, read_points, read_table, read_whole_number
from robustfer.data.classes import EXPRESSIONS, EXPRESSIONS_WITH_CONTEMPT, class_order
from robustfer.data.readers.images import FileFaces
from robustfer.data.readers.label_names import name_classes
from robustfer.data.readers.paths import (
    SPLITS,
    absolute_starts,
    check_files,
    check_inside,
    check_split,
)
from robustfer.data.readers.votes import VoteRule, judge

_COLUMNS = ("path", "label", "split", "votes", "landmarks")


class LabelTable(FileFaces):
    r"""Read images and labels from a csv file with columns ``path`` and ``label``.

    Optional columns:

    - ``split``: ``train``, ``validation`` or ``test``.
    - ``votes``: number of people who chose each class, in the order of ``classes``: ``"7;0;3"``.
    - ``landmarks``: ``"x;y;x;y;..."`` in pixels of the file. An empty cell means unknown.

    A label is a name, or a synonym of an expression ("happy", "Joy"). The meaning of numbers
    differs between data sets, so they need ``numbers``. If all labels are expressions, the classes
    are robustfer's in their usual order. Otherwise they are the sorted labels. A label one letter
    away from an expression ("suprise") is an error, unless ``classes`` names it. So is a word for
    an unclear image ("uncertain", "non-face") beside expressions. ``ids`` are the paths below
    ``root`` with forward slashes. Absolute paths below ``root`` are accepted.

    Args:
        table: the csv file.
        columns: other names of the columns in the table: ``{"path": "pth"}``. ``None`` ignores an
            optional column that means something else: ``{"votes": None}``.
        separator: the character between two values of a row: ``","``, ``";"``, ``"\t"``, ...
        root: the folder that paths start from. Default: the table's folder.
        split: rows to read. ``None``: all rows of a table without a column ``split``.
        labels: ``"label"`` for the column, or a rule of :class:`robustfer.data.FERPlus` that makes
            a label from the votes. Rows with too divided votes are left out.
        classes: names of the classes, or a data set of :data:`robustfer.data.NUMBERINGS` for its
            order. Any other label is an error.
        numbers: the meaning of numbers in ``label``: a data set of
            :data:`robustfer.data.NUMBERINGS`, or ``"classes"`` for positions in ``classes``.
        size: side of the square to resize to, in pixels. ``None``: all images have one size.
        duplicates: ``"error"``, or ``"drop"`` to skip a repeated row.
        in_memory: read all images at once and keep them, 3 * H * W bytes each.

    Raises:
        FileNotFoundError: the table or an image does not exist.
        ValueError: an option or the table has another form. The message names file and line.

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
        columns: Mapping[str, str | None] | None = None,
        separator: str = ",",
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
        check_split(split)
        check_choice("labels", labels, ("label", *get_args(VoteRule)))
        needed = ("path", "label" if labels == "label" else "votes", *(["split"] if split else []))
        columns = columns or {}
        rows = _read_rows(table, root, needed, columns, separator, split, duplicates)
        if labels == "label":
            names, order = name_classes(rows.labels, numbers=numbers, classes=classes)
        else:
            order = _voted_classes(table, rows, classes)
        paths = rows.cells["path"]
        if not paths:
            raise ValueError(f"{table} names no image{f' of the split {split}' if split else ''}")

        targets: Tensor | list[int]
        with _ignorable("votes", named={*columns, *needed}):
            votes = _votes(table, rows, len(order))
        if labels == "label":
            places = {label: order.index(name) for label, name in names.items()}
            targets = [places[label] for label in rows.cells["label"]]
        else:
            assert votes is not None  # _read_rows requires the column
            shares, leader = judge(votes, num_classes=len(order), rule=labels)
            kept = leader >= 0
            if not bool(kept.any()):
                raise ValueError(f"{table}: the votes are too divided for {labels!r} in every row")
            rows.excluded["with votes too divided"] = int((~kept).sum())
            targets, votes = (leader if labels == "majority" else shares)[kept], votes[kept]
            rows.lines = list(compress(rows.lines, kept.tolist()))
            for name, cells in rows.cells.items():
                rows.cells[name] = list(compress(cells, kept.tolist()))
            paths = rows.cells["path"]
        check_files(table, root, zip(rows.lines, paths, strict=True))
        with _ignorable("landmarks", named=columns):
            self._points = _points(table, rows)
        super().__init__(
            root,
            size=size,
            in_memory=in_memory,
            classes=order,
            ids=paths,
            targets=targets,
            votes=votes,
            excluded=+rows.excluded,
        )

    def load_landmarks(self, row: int) -> Tensor:
        if self._points is None:
            raise ValueError(
                "the table has no column landmarks; name it in columns=, or use LandmarkFile"
            )
        return self.place(row, self._points[row])


class _Rows:
    """The rows of a split by column. A tuple per row would slow down garbage collection."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.cells: dict[str, list[str]] = {name: [] for name in _COLUMNS}
        #: Labels of all splits: label -> its first line.
        self.labels: dict[str, str] = {}
        self.excluded: Counter[str] = Counter()


def _read_rows(
    table: Path,
    root: Path,
    needed: Sequence[str],
    columns: Mapping[str, str | None],
    separator: str,
    split: str | None,
    duplicates: Duplicates,
) -> _Rows:
    """Read the rows of a split, with robustfer's names of columns."""
    for name in columns:
        if name not in _COLUMNS:
            raise ValueError(
                f"columns must be among {', '.join(_COLUMNS)}, got {name!r}"
                + _shown.near(str(name), _COLUMNS)
            )
        if columns[name] is None and name in needed:
            raise ValueError(f"columns must name the column {name}, got None; it is needed")
    if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
        hint = "; write a tab as $'\\t' in a shell" if separator == "\\t" else ""
        raise ValueError(f"separator must be one character, got {separator!r}{hint}")
    given = {name: columns.get(name, name) for name in _COLUMNS}
    theirs = {name: column for name, column in given.items() if column is not None}
    wanted = dict.fromkeys(theirs[name] for name in (*needed, *columns) if name in theirs)
    names, starts = NamedOnce(table, duplicates), absolute_starts(root)
    rows = _Rows()
    hint = "; map other names with columns=, such as columns={'path': 'image'}"
    for line, row in read_table(table, list(wanted), separator=separator, hint=hint):
        cells = {name: row[column] for name, column in theirs.items() if column in row}
        cells["path"] = check_inside(table, line, cells["path"], starts)
        if split is not None:
            cells["split"] = _split(table, line, cells["split"])
        elif "split" in cells:
            raise ValueError(
                f"{table} has a column split; choose the rows with split=, or ignore the column "
                "with columns={'split': None}"
            )
        if not names.is_new(line, cells["path"], tuple(cells.values())):
            rows.excluded["named again in the same words"] += 1
            continue
        if "label" in cells and cells["label"] not in rows.labels:
            rows.labels[cells["label"]] = f"{table}, line {line}"
        if cells.get("split") == split:
            rows.lines.append(line)
            for name, cell in cells.items():
                rows.cells[name].append(cell)
    return rows


@contextmanager
def _ignorable(name: str, *, named: Container[str]) -> Iterator[None]:
    """Say how to ignore a column that nobody has named, if it cannot be read."""
    try:
        yield
    except ValueError as error:
        if name in named:
            raise
        way = f"if the column means something else, ignore it with columns={{{name!r}: None}}"
        raise ValueError(f"{error}; {way}") from error


def _split(table: Path, line: int, text: str) -> str:
    for split, names in SPLITS.items():
        if text.lower() in names:
            return split
    raise ValueError(
        f"{table}, line {line}: split must be one of {', '.join(SPLITS)}, got {text!r}"
    )


def _voted_classes(
    table: Path, rows: _Rows, classes: str | Sequence[str] | None
) -> tuple[str, ...]:
    if classes is not None:
        return class_order(classes)
    first = next(iter(rows.cells["votes"]), "")
    known = {len(each): each for each in (EXPRESSIONS, EXPRESSIONS_WITH_CONTEMPT)}
    count = len(_cells(first))
    if count not in known:
        raise ValueError(
            f"{table}: votes for {count} classes need names, got {_shown.value(first)}; pass "
            "classes=, and write votes like 7;0;3"
        )
    return known[count]


def _votes(table: Path, rows: _Rows, num_classes: int) -> Tensor | None:
    if not rows.cells["votes"]:
        return None
    votes: list[list[int]] = []
    for line, text in zip(rows.lines, rows.cells["votes"], strict=True):
        cells = _cells(text) or ["0"] * num_classes
        if len(cells) != num_classes:
            raise ValueError(
                f"{table}, line {line}: votes must be {num_classes} numbers, got "
                f"{_shown.value(text)}"
            )
        votes.append([read_whole_number(table, line, "a vote", cell) for cell in cells])
    return torch.tensor(votes, dtype=torch.int64, device="cpu")


def _points(table: Path, rows: _Rows) -> Tensor | None:
    known = {place: text for place, text in enumerate(rows.cells["landmarks"]) if text}
    if not known:
        return None
    count = len(_cells(next(iter(known.values())))) // 2  # read_points requires it in all rows
    points = torch.full((len(rows.lines), count, 2), torch.nan, dtype=torch.float32, device="cpu")
    for place, text in known.items():
        points[place] = read_points(f"{table}, line {rows.lines[place]}", _cells(text), count)
    warn_if_normalized(points, f"landmarks of {table}")
    return points


def _cells(text: str) -> list[str]:
    return text.replace(";", " ").split()
