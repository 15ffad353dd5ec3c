"""Tiny trees of files in the layouts that the readers know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
