"""Read AffectNet in both of its released layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from robustfer import _shown
from robustfer._checks import check_bool
from robustfer._tables import (
    MAX_WHOLE_NUMBER,
    Duplicates,
    NamedOnce,
    parse_number,
    parse_whole_number,
    read_points,
    read_table,
    read_whole_number,
)
from robustfer.data.classes import NUMBERINGS, expressions
from robustfer.data.readers.images import Box, FileFaces, is_hidden, walk_images
from robustfer.data.readers.paths import check_files, check_inside, existing_folder

#: The meaning of AffectNet's numbers above those of the expressions.
_NO_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}
_SPLITS = {"train": ("training.csv", "train_set"), "validation": ("validation.csv", "val_set")}
_COLUMNS = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
            "facial_landmarks", "expression"]  # fmt: skip
_POINTS = 68


class AffectNet(FileFaces):
    """Read the manually labelled faces of a split of AffectNet, in either layout.

    The first release has tables in ``root`` or ``Manually_Annotated_file_lists``, and photographs
    in ``Manually_Annotated_Images``. Both can be in ``Manually_Annotated`` below ``root``. Faces
    are cropped by the boxes in the table::

        training.csv, validation.csv    subDirectory_filePath, face_x, face_y, face_width,
                                        face_height, facial_landmarks, expression, ...
        Manually_Annotated_Images/1/abc.jpg

    The later release has cropped faces, and arrays. Nothing is unpickled::

        train_set/images/0.jpg          val_set/images/0.jpg
        train_set/annotations/0_exp.npy, 0_lnd.npy, ...

    Images labelled none, uncertain or no face are left out, as is contempt with seven classes.
    ``ids`` are the paths in the table, or the names of the files.

    Args:
        root: the data set's folder.
        split: ``"train"`` or ``"validation"``. Papers test on the latter, because the labels of
            AffectNet's test set were not released.
        num_classes: 7, or 8 with contempt.
        crop: with tables: crop the faces. ``False``: whole photographs.
        size: side of the square to resize to, in pixels. ``None`` keeps the size of the images,
            which is the same for all only in the later release.
        duplicates: with tables: ``"error"``, or ``"drop"`` to skip a repeated row.
        in_memory: read all images at once and keep them, 3 * size * size bytes each.

    Raises:
        FileNotFoundError: root, table, an image or its label does not exist.
        ValueError: an option or a file has another form. The message names file and line.

    Reference:
        Mollahosseini, Hasani, Mahoor, AffectNet: A Database for Facial Expression, Valence, and
        Arousal Computing in the Wild, IEEE Transactions on Affective Computing 2017.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for folder in ("images", "annotations"):
    ...         Path(root, "train_set", folder).mkdir(parents=True)
    ...     Image.new("RGB", (224, 224)).save(Path(root, "train_set", "images", "0.jpg"))
    ...     np.save(Path(root, "train_set", "annotations", "0_exp.npy"), np.array("3"))
    ...     faces = AffectNet(root, in_memory=True)
    >>> faces.ids, faces.classes[faces[0]["target"]]
    (['0.jpg'], 'surprise')
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "validation"] = "train",
        *,
        num_classes: Literal[7, 8] = 7,
        crop: bool = True,
        size: int | None = None,
        duplicates: Duplicates = "error",
        in_memory: bool = False,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(
                f"split must be train or validation, got {split!r}; the labels of AffectNet's "
                "test set were not released"
            )
        classes = expressions(num_classes)
        check_bool("crop", crop)
        root = existing_folder(root)
        name, folder = _SPLITS[split][0], root / _SPLITS[split][1]
        above, lists = root / "Manually_Annotated", "Manually_Annotated_file_lists"
        tables = (root / name, root / lists / name, above / name, above / lists / name)
        table = next(filter(Path.is_file, tables), None)
        self._annotations, images = folder / "annotations", folder / "images"
        excluded: Counter[str] = Counter()
        if table is not None:
            faces = _read_faces(table, duplicates, excluded)
            images = root / "Manually_Annotated_Images"
            images = images if images.is_dir() else existing_folder(above / images.name)
        elif folder.is_dir():
            faces = _read_annotations(self._annotations, images, excluded)
        else:
            raise FileNotFoundError(
                f"{root} has neither {name} nor {folder.name}, expected one of them for the split "
                f"{split!r} of AffectNet; pass the data set's folder as root"
            )
        others = [face.code for face in faces if face.code >= num_classes]
        excluded.update(f"labelled {_NO_EXPRESSION.get(code, 'contempt')}" for code in others)
        faces = [face for face in faces if face.code < num_classes]
        if not faces:
            raise ValueError(f"{table or folder}: no image is left: {dict(+excluded) or 'none'}")
        if table is not None:
            check_files(table, images, ((face.line, face.name) for face in faces))

        codes = NUMBERINGS["affectnet"]
        super().__init__(
            images,
            size=size,
            boxes=[face.box for face in faces] if table is not None and crop else None,
            in_memory=in_memory,
            classes=classes,
            ids=[face.name for face in faces],
            targets=[classes.index(codes[face.code]) for face in faces],
            excluded=+excluded,
        )
        self._table, self._lines = table, [face.line for face in faces]
        self._points: Tensor | None = None

    def load_landmarks(self, row: int) -> Tensor:
        if self._table is None:
            path = self._annotations / f"{Path(self.all_ids[row]).stem}_lnd.npy"
            words = _load(path).ravel().astype(str).tolist()
            return self.place(row, read_points(str(path), words, _POINTS))
        # Landmarks are most of the table and rarely needed, so they are read only now.
        if self._points is None:
            self._points = _read_points(self._table, self._lines)
        return self.place(row, self._points[row])


class _Face(NamedTuple):
    line: int
    name: str
    code: int
    box: Box = Box(0, 0, 0, 0)


def _read_faces(table: Path, duplicates: Duplicates, excluded: Counter[str]) -> list[_Face]:
    names = NamedOnce(table, duplicates)
    faces: list[_Face] = []
    for line, row in read_table(table, _COLUMNS):
        name = check_inside(table, line, row["subDirectory_filePath"])
        code = read_whole_number(table, line, "expression", row["expression"], max(_NO_EXPRESSION))
        if not names.is_new(line, name, tuple(row.values())):
            excluded["named again in the same words"] += 1
            continue
        face = _Face(line, name, code)
        if code not in _NO_EXPRESSION:  # without a face the box can be empty
            left, top, width, height = (
                _pixels(table, line, column, row[column]) for column in _COLUMNS[1:5]
            )
            if width < 1 or height < 1:
                raise ValueError(
                    f"{table}, line {line}: face_width and face_height must be at least 1, got "
                    f"{width} and {height}"
                )
            face = face._replace(box=Box(left, top, left + width, top + height))
        faces.append(face)
    return faces


def _read_points(table: Path, lines: Sequence[int]) -> Tensor:
    places = {line: place for place, line in enumerate(lines)}
    points = torch.empty(len(lines), _POINTS, 2, dtype=torch.float32, device="cpu")
    for line, row in read_table(table, _COLUMNS):
        if line in places:
            words = row["facial_landmarks"].split(";")
            points[places[line]] = read_points(f"{table}, line {line}", words, _POINTS)
    return points


def _read_annotations(annotations: Path, images: Path, excluded: Counter[str]) -> list[_Face]:
    for folder in (annotations, images):
        existing_folder(folder)
    paths = list(walk_images(images, excluded))
    inner = next((parts for parts in paths if len(parts) > 1), None)
    if inner is not None:
        raise ValueError(
            f"{images.joinpath(*inner)} is in a subfolder; put all images directly into {images}"
        )
    if not paths:
        raise ValueError(f"{images} has no image, expected files like {images / '0.jpg'}")
    found = sorted((name for (name,) in paths), key=lambda name: (len(name), name))  # 2 before 10
    labelled = {path.name for path in annotations.glob("*_exp.npy") if not is_hidden(path.name)}
    excluded["without an image"] = len(labelled - {f"{Path(name).stem}_exp.npy" for name in found})
    faces: list[_Face] = []
    for name in tqdm(found, desc=f"reading {annotations.parent.name}", disable=None):
        path = annotations / f"{Path(name).stem}_exp.npy"
        value = _load(path)
        code = parse_whole_number(str(value.reshape(-1)[0])) if value.size == 1 else None
        if code is None or code > max(_NO_EXPRESSION):
            raise ValueError(
                f"{path} must have an expression from 0 to 10, got {_shown.value(str(value))}"
            )
        faces.append(_Face(0, name, code))
    return faces


def _load(path: Path) -> NDArray[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is not a file")
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not a plain numpy array: {error}; arrays of objects are not read"
        ) from error


def _pixels(table: Path, line: int, column: str, text: str) -> int:
    value = parse_number(text)
    if value is None or abs(value) > MAX_WHOLE_NUMBER:
        raise ValueError(
            f"{table}, line {line}: {column} must be a number of pixels, got {_shown.value(text)}"
        )
    return round(value)
