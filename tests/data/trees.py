"""Tiny trees of files in the layouts that the readers know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)


def write_image(path: Path, *, grey: int = 0, size: tuple[int, int] = (48, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, color=grey).save(path)
    return path


def vote_row(name: str, *, usage: str = "Training", **votes: int) -> str:
    columns = HEADER.split(",")[2:]
    unknown = set(votes) - set(columns)
    assert not unknown, unknown
    return ",".join([usage, name, *(str(votes.get(column, 0)) for column in columns)])


def write_ferplus(root: Path, rows: Sequence[str], *, header: str = HEADER) -> Path:
    """A FERPlus tree; the grey value of an image is the number of its row."""
    folders = {"Training": "Train", "PublicTest": "Valid", "PrivateTest": "Test"}
    for folder in folders.values():
        (root / "data" / f"FER2013{folder}").mkdir(parents=True, exist_ok=True)
    (root / "fer2013new.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for number, row in enumerate(rows):
        usage, name = row.split(",")[:2]
        if usage in folders and name and "/" not in name:
            write_image(root / "data" / f"FER2013{folders[usage]}" / name, grey=number)
    return root


def write_fer2013(
    path: Path, usages: Sequence[str], *, header: str = "emotion,pixels,Usage"
) -> Path:
    """FER2013's csv; the emotion counts the rows, and a face has one grey value, 10 times that."""
    rows = [header]
    for number, usage in enumerate(usages):
        pixels = " ".join([str(10 * number)] * 48**2)
        cells = {"emotion": str(number % 7), "pixels": pixels, "Usage": usage}
        rows.append(",".join(cells[name.strip()] for name in header.split(",")))
    path.write_text("\n".join(rows) + "\n")
    return path


def write_rafdb(root: Path, lines: Sequence[str]) -> Path:
    """A RAF-DB tree with all its kinds of files; grey values count the lines.

    The originals are 60 x 40; the face's box is 30 x 20 pixels from (10, 5); the nose is at
    (24.5, 14.5).
    """
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines) + "\n")
    for folder in ("manual", "auto", "boundingbox"):
        (root / "Annotation" / folder).mkdir(parents=True)
    for number, line in enumerate(lines):
        stem = line.split()[0].removesuffix(".jpg")
        write_image(root / "Image/aligned" / f"{stem}_aligned.jpg", grey=number, size=(100, 100))
        write_image(root / "Image/original" / f"{stem}.jpg", grey=number, size=(60, 40))
        manual = "20\t12\n30\t12\n24.5\t14.5\n21\t18\n28\t18\n0\n1\n2\n"
        (root / "Annotation/manual" / f"{stem}_manu_attri.txt").write_text(manual)
        auto = "".join(f"{20 + point / 4} 15.0\n" for point in range(37))
        (root / "Annotation/auto" / f"{stem}_auto_attri.txt").write_text(auto)
        (root / "Annotation/boundingbox" / f"{stem}_boundingbox.txt").write_text("10 5 40 25\n")
    return root


AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal"
)


def affectnet_row(name: str, expression: int | str, *, box: str = "10,5,30,20") -> str:
    points = ";".join(f"{20 + point / 4};15" for point in range(68))
    return f"{name},{box},{points},{expression},0.1,-0.2"


def write_affectnet_table(
    root: Path, rows: Sequence[str], *, table: str = "training.csv", header: str = AFFECTNET_HEADER
) -> Path:
    """AffectNet's first layout; photographs of 60 x 40 whose grey values count the rows."""
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join([header, *rows]) + "\n")
    for number, row in enumerate(rows):
        name = row.split(",")[0]
        if ".." not in name:
            images = root / "Manually_Annotated_Images"
            write_image(images / name, grey=number, size=(60, 40))
    return root


def write_affectnet_arrays(root: Path, expressions: Sequence[int], *, part: str = "train_set"):
    """AffectNet's later layout; faces of 224 x 224 whose grey values count them."""
    (root / part / "annotations").mkdir(parents=True)
    for number, expression in enumerate(expressions):
        write_image(root / part / "images" / f"{number}.jpg", grey=number, size=(224, 224))
        stem = root / part / "annotations" / str(number)
        np.save(f"{stem}_exp.npy", np.array(str(expression)))
        np.save(f"{stem}_lnd.npy", np.arange(136.0) + number)
    return root
