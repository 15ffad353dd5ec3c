"""Read FERPlus: the faces of FER2013 with the votes of ten people for each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch

from robustfer._checks import check_choice
from robustfer._tables import Duplicates, NamedOnce, read_table, read_whole_number
from robustfer.data.classes import expressions
from robustfer.data.readers.fer2013 import USAGES, check_usage, read_fer2013_labels
from robustfer.data.readers.images import FileFaces, is_hidden
from robustfer.data.readers.paths import check_files, check_inside
from robustfer.data.readers.votes import VOTE_COLUMNS, VoteRule, judge

_FOLDERS = {"train": "FER2013Train", "validation": "FER2013Valid", "test": "FER2013Test"}


class FERPlus(FileFaces):
    """Read the faces of a split of FERPlus, 48 x 48 and grey.

    ``root`` has ``fer2013new.csv`` (the votes), and the folders ``FER2013Train``, ``FER2013Valid``
    and ``FER2013Test`` (the images) in ``data``. An image is left out if the votes are too divided
    for the rule. It is also left out if unknown, no face (NF) or, with seven classes, contempt
    leads. ``ids`` are the names of images. ``votes`` are all votes for the classes.

    Args:
        root: the data set's folder.
        split: ``"train"``, ``"validation"`` (the public test) or ``"test"`` (the private test).
        labels: how ``target`` is made: by a rule of FERPlus's authors, or from FER2013. A rule
            first drops columns with a single vote, as probable mistakes.

            - ``"majority"``: the class with more than half of the votes.
            - ``"crossentropy"``: the relative votes of the leading classes, at most three, that
              together have more than half of the votes.
            - ``"probability"``: the same shares. The training loop draws a class from them at each
              visit (:func:`torch.multinomial`).
            - ``"multi_target"``: equal shares for the classes with at least three tenths of the
              votes. The authors' loss accepts any class with a share.
            - ``"fer2013"``: FER2013's label, which is often wrong, with the majority in
              ``true_targets``.
        fer2013_labels: for ``labels="fer2013"``: the original ``fer2013.csv``, matched row by row
            to the complete ``fer2013new.csv``, or a csv with columns ``image`` and ``emotion``
            (FER2013's numbers).
        num_classes: 7, or 8 with contempt.
        size: side of the square to resize to, in pixels. ``None`` keeps the size of the images.
        duplicates: ``"error"``, or ``"drop"`` to skip a repeated row.
        in_memory: read all images at once and keep them, 6,912 bytes each at 48 x 48.

    Raises:
        FileNotFoundError: root, table or an image does not exist.
        ValueError: an option or a file has another form. The message names file and line.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> import tempfile
    >>> from PIL import Image
    >>> table = '''Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
    ... Training,fer0000000.png,1,9,0,0,0,0,0,0,0,0
    ... Training,fer0000001.png,5,0,0,5,0,0,0,0,0,0'''
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = Path(root, "fer2013new.csv").write_text(table)
    ...     Path(root, "data", "FER2013Train").mkdir(parents=True)
    ...     Image.new("L", (48, 48)).save(Path(root, "data", "FER2013Train", "fer0000000.png"))
    ...     faces = FERPlus(root, in_memory=True)
    >>> faces.classes[faces[0]["target"]], faces.excluded
    ('happiness', {'without a majority': 1})
    """  # noqa: E501 - the header of the table is one line

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "validation", "test"] = "train",
        *,
        labels: VoteRule | Literal["fer2013"] = "majority",
        fer2013_labels: str | Path | None = None,
        num_classes: Literal[7, 8] = 7,
        size: int | None = None,
        duplicates: Duplicates = "error",
        in_memory: bool = False,
    ) -> None:
        check_choice("split", split, tuple(USAGES))
        check_choice("labels", labels, (*get_args(VoteRule), "fer2013"))
        if labels == "fer2013" and fer2013_labels is None:
            raise ValueError(
                "labels='fer2013' needs the labels; pass fer2013_labels=, the path of fer2013.csv "
                "or of a csv with columns image and emotion"
            )
        if labels != "fer2013" and fer2013_labels is not None:
            raise ValueError(f"fer2013_labels is only for labels='fer2013', got labels={labels!r}")
        classes = expressions(num_classes)
        usage, root = USAGES[split], Path(root).expanduser()
        folder = root / "data" / _FOLDERS[split]
        if not folder.is_dir():
            raise FileNotFoundError(
                f"the folder {folder if root.is_dir() else root} does not exist; FERPlus keeps the "
                f"split {split!r} in data/{folder.name} below its root"
            )
        table = root / "fer2013new.csv"
        faces = _read_faces(table, duplicates)
        of_split = [face for face in faces if face.usage == usage]
        here = [face for face in of_split if face.image and not face.repeated]
        if not here:
            raise ValueError(f"{table} names no image of Usage {usage!r}")

        votes = torch.tensor([face.votes for face in here], dtype=torch.int64, device="cpu")
        rule: VoteRule = "majority" if labels == "fer2013" else labels
        shares, leader = judge(votes, num_classes=num_classes, rule=rule)
        kept = (leader >= 0) & (leader < num_classes)
        excluded: Counter[str] = Counter()
        excluded["removed by FERPlus"] = sum(not face.image for face in of_split)
        excluded["named again with the same votes"] = sum(face.repeated for face in of_split)
        excluded.update(_reason(rule, column) for column in leader[~kept].tolist())
        chosen = [face for face, keep in zip(here, kept.tolist(), strict=True) if keep]
        if not chosen:
            raise ValueError(f"{table}: every image of Usage {usage!r} is left out: {+excluded}")

        check_files(table, folder, ((face.line, face.image) for face in chosen))
        unnamed = {path.name for path in folder.iterdir()} - {face.image for face in here}
        excluded["without votes"] = sum(
            name.lower().endswith(".png") and not is_hidden(name) for name in unnamed
        )

        targets, true_targets = (leader if rule == "majority" else shares)[kept], None
        if fer2013_labels is not None:
            path = Path(fer2013_labels).expanduser()
            rows = [(face.usage, face.image) for face in faces]
            found = read_fer2013_labels(path, rows, duplicates=duplicates)
            missing = [face.image for face in chosen if face.image not in found]
            if missing:
                more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
                raise ValueError(f"{path} has no label for {missing[0]}{more}")
            true_targets = targets
            targets = torch.tensor([found[face.image] for face in chosen], device="cpu")
        super().__init__(
            folder,
            size=size,
            in_memory=in_memory,
            classes=classes,
            ids=[face.image for face in chosen],
            targets=targets,
            true_targets=true_targets,
            votes=votes[kept, :num_classes],
            excluded=+excluded,  # drops reasons that did not occur
        )


class _Face(NamedTuple):
    line: int
    usage: str
    image: str
    votes: list[int]
    repeated: bool


def _read_faces(table: Path, duplicates: Duplicates) -> list[_Face]:
    faces: list[_Face] = []
    names = NamedOnce(table, duplicates)
    for line, row in read_table(table, ["Usage", "Image name", *VOTE_COLUMNS]):
        usage, image = row["Usage"], row["Image name"]
        check_usage(table, line, usage)
        votes = [read_whole_number(table, line, name, row[name]) for name in VOTE_COLUMNS]
        repeated = False
        if image:  # FERPlus removed the faces without a name
            image = check_inside(table, line, image)
            repeated = not names.is_new(line, image, (usage, *votes))
        faces.append(_Face(line, usage, image, votes, repeated))
    return faces


def _reason(rule: VoteRule, column: int) -> str:
    if column < 0:
        return "without a majority" if rule == "majority" else "with votes too divided"
    lead = "a majority" if rule == "majority" else "most votes"
    return f"with {lead} for {VOTE_COLUMNS[column]}"
