"""Read the basic expressions of RAF-DB."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from torch import Tensor

from robustfer._checks import check_choice
from robustfer._tables import MAX_WHOLE_NUMBER, Duplicates, NamedOnce, read_points
from robustfer.data.classes import EXPRESSIONS, NUMBERINGS
from robustfer.data.readers.images import Box, FileFaces
from robustfer.data.readers.label_lists import Entry, aligned_name, read_label_list
from robustfer.data.readers.paths import check_files, check_inside, existing_folder

Images = Literal["aligned", "original", "face"]

#: robustfer's name of a split -> the prefix of its images' names.
_SPLITS = {"train": "train_", "test": "test_"}
_LANDMARKS = {"manual": ("manual", "manu_attri", 5), "auto": ("auto", "auto_attri", 37)}


class RAFDB(FileFaces):
    """Read the faces of a split of RAF-DB's basic set: 12,271 for training, 3,068 for testing.

    ``root`` is the folder ``basic``, or its parent::

        EmoLabel/list_patition_label.txt              lines like "train_00001.jpg 5"
        Image/aligned/train_00001_aligned.jpg         100 x 100
        Image/original/train_00001.jpg
        Annotation/manual/train_00001_manu_attri.txt  5 landmarks, one per line, then attributes
        Annotation/auto/train_00001_auto_attri.txt    37 landmarks, one per line
        Annotation/boundingbox/train_00001_boundingbox.txt

    Only the labels and the chosen images are needed. ``ids`` are the names in the list. The numbers
    1 to 7 are surprise, fear, disgust, happiness, sadness, anger and neutral. The four numbers of a
    bounding box are read as left, top, right and bottom.

    Args:
        root: the data set's folder.
        split: ``"train"`` or ``"test"``. RAF-DB has no validation set.
        images: ``"aligned"`` faces, whole ``"original"`` images, or ``"face"``: the original image
            cropped to the bounding box.
        landmark_file: ``"manual"``, 5 landmarks: eyes, nose and corners of the mouth, or
            ``"auto"``, 37 landmarks in an undocumented order. Aligned images have none.
        size: side of the square to resize to, in pixels. ``None`` keeps the size of the images.
        duplicates: ``"error"``, or ``"drop"`` to skip a repeated line.
        in_memory: read all images at once and keep them, 30,000 bytes per aligned face.

    Raises:
        FileNotFoundError: root, list, an image or a bounding box does not exist.
        ValueError: an option or a file has another form. The message names file and line.

    Reference:
        Li, Deng, Du, Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression
        Recognition in the Wild, CVPR 2017.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for folder in ("EmoLabel", "Image/aligned"):
    ...         Path(root, folder).mkdir(parents=True)
    ...     _ = Path(root, "EmoLabel", "list_patition_label.txt").write_text("train_00001.jpg 5")
    ...     Image.new("RGB", (100, 100)).save(Path(root, "Image/aligned/train_00001_aligned.jpg"))
    ...     faces = RAFDB(root, in_memory=True)
    >>> faces.ids, faces.classes[faces[0]["target"]]
    (['train_00001.jpg'], 'sadness')
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "test"] = "train",
        *,
        images: Images = "aligned",
        landmark_file: Literal["manual", "auto"] = "manual",
        size: int | None = None,
        duplicates: Duplicates = "error",
        in_memory: bool = False,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(
                f"split must be train or test, got {split!r}; RAF-DB has no validation set, so "
                "hold out a part of train with the method split"
            )
        check_choice("images", images, get_args(Images))
        check_choice("landmark_file", landmark_file, tuple(_LANDMARKS))
        root = existing_folder(root)
        self._root = root / "basic" if (root / "basic").is_dir() else root
        self._kind, self._landmark_file = images, landmark_file

        table = self._root / "EmoLabel" / "list_patition_label.txt"
        if not table.is_file():
            raise FileNotFoundError(
                f"{table} does not exist, or is not a file; pass RAF-DB's folder basic, or its "
                "parent, as root. If your copy has a folder for each class, read it as folder:PATH "
                "with numbers=rafdb"
            )
        excluded: Counter[str] = Counter()
        faces = _read_list(table, split, duplicates, excluded)
        if not faces:
            raise ValueError(f"{table} names no image whose name begins with {_SPLITS[split]}")
        ids = [face.name for face in faces]
        folder = self._root / "Image" / ("aligned" if images == "aligned" else "original")
        names = [aligned_name(name) for name in ids] if images == "aligned" else ids
        check_files(table, folder, zip((face.line for face in faces), names, strict=True))
        super().__init__(
            folder,
            names=names,
            size=size,
            boxes=[self._box(name) for name in ids] if images == "face" else None,
            in_memory=in_memory,
            classes=EXPRESSIONS,
            ids=ids,
            targets=[EXPRESSIONS.index(NUMBERINGS["rafdb"][face.number]) for face in faces],
            excluded=excluded,
        )

    def load_landmarks(self, row: int) -> Tensor:
        if self._kind == "aligned":
            raise ValueError(
                "images='aligned' has no landmarks: RAF-DB's are of the original images, and the "
                "alignment is unknown; use images='face' or images='original'"
            )
        folder, ending, count = _LANDMARKS[self._landmark_file]
        path = self._annotation(folder, self.all_ids[row], ending)
        return self.place(row, read_points(str(path), _first_words(path, count), count))

    def _box(self, name: str) -> Box:
        path = self._annotation("boundingbox", name, "boundingbox")
        corners = read_points(str(path), _first_words(path, 4), 2, name="the box").ravel().tolist()
        left, top, right, bottom = corners
        if right <= left or bottom <= top or max(map(abs, corners)) > MAX_WHOLE_NUMBER:
            raise ValueError(
                f"{path} must have left, top, right and bottom in pixels, got {corners}"
            )
        return Box(*map(round, corners))

    def _annotation(self, folder: str, name: str, ending: str) -> Path:
        return self._root / "Annotation" / folder / f"{PurePosixPath(name).stem}_{ending}.txt"


def _read_list(
    table: Path, split: str, duplicates: Duplicates, excluded: Counter[str]
) -> list[Entry]:
    names = NamedOnce(table, duplicates)
    faces: list[Entry] = []
    for line, name, number in read_label_list(table):
        if not name.startswith(tuple(_SPLITS.values())):
            raise ValueError(
                f"{table}, line {line}: a name must begin with train_ or test_, got {name}"
            )
        if number not in NUMBERINGS["rafdb"]:
            raise ValueError(f"{table}, line {line}: a label must lie in 1 to 7, got {number}")
        name = check_inside(table, line, name)
        new, here = names.is_new(line, name, number), name.startswith(_SPLITS[split])
        if here and new:
            faces.append(Entry(line, name, number))
        elif here:
            excluded["named again with the same label"] += 1
    return faces


def _first_words(path: Path, count: int) -> list[str]:
    """Return the words of the first non-empty lines of a small file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is not a file")
    text = path.read_text(encoding="utf-8", errors="replace").replace(",", " ")
    lines = [words for line in text.split("\n") if (words := line.split())]
    return [word for words in lines[:count] for word in words]
