"""Text files with a name and a number a line, as RAF-DB's labels and noisy labels come in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from robustfer._files import write_whole

_ALIGNED = "_aligned"


class Entry(NamedTuple):
    """A line of a label list."""

    line: int
    name: str
    number: int


def read_label_list(path: Path) -> list[Entry]:
    r"""Read lines of a name and a whole number, separated by blanks, a tab or a comma.

    A name may have blanks in it; empty lines are allowed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no name and number, or the file has none; the message names file and
            line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "list.txt")
    ...     _ = path.write_text("train_00001.jpg 5\ntrain_00002.jpg 1\n")
    ...     [(entry.name, entry.number) for entry in read_label_list(path)]
    [('train_00001.jpg', 5), ('train_00002.jpg', 1)]
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is no file")
    entries: list[Entry] = []
    line = 0
    with path.open(encoding="utf-8-sig") as file:
        try:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    entries.append(_entry(path, line, text.strip()))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {line + 1}: no text: {error}") from error
    if not entries:
        raise ValueError(f"{path} is empty; expected are lines like 'train_00001.jpg 5'")
    return entries


def write_label_list(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    r"""Write names and numbers, a line each; the file is there whole or not at all.

    Raises:
        ValueError: a name that could not be read again.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "list.txt")
    ...     write_label_list(path, [("train_00001.jpg", 5)])
    ...     path.read_text()
    'train_00001.jpg 5\n'
    """
    lines = []
    for name, number in rows:
        if not name or name != name.strip() or len(name.splitlines()) != 1:
            raise ValueError(f"{name!r} cannot stand in a label list, where a line is a name")
        lines.append(f"{name} {number}\n")
    write_whole(path, lambda file: file.write("".join(lines).encode()))


def aligned_name(name: str) -> str:
    """Return the name of an image's aligned copy.

    >>> aligned_name("train_00001.jpg")
    'train_00001_aligned.jpg'
    """
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}{_ALIGNED}{path.suffix}"))


def plain_name(name: str) -> str:
    """Return the name of an image from that of its aligned copy, or from its own.

    >>> plain_name("train_00001_aligned.jpg"), plain_name("train_00001.jpg")
    ('train_00001.jpg', 'train_00001.jpg')
    """
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem.removesuffix(_ALIGNED)}{path.suffix}"))


def _entry(path: Path, line: int, text: str) -> Entry:
    name, _, number = text.replace("\t", " ").rpartition("," if "," in text else " ")
    name, number = name.strip(), number.strip()
    if not name or not (number.isascii() and number.isdigit()):
        raise ValueError(
            f"{path}, line {line}: must be a name and a whole number, like 'train_00001.jpg 5', "
            f"got {text!r}"
        )
    return Entry(line, name, int(number))
