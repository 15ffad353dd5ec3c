"""Tables that users bring: csv files read row by row, every mistake named with file and line."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

#: What to do with something that a table names again in the very same words.
Duplicates = Literal["error", "drop"]

#: robustfer's name of a split -> the names that a table or a folder may have for it.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    r"""Read a csv file with a header, row by row.

    Blanks around names and values, a byte-order mark and empty lines are allowed; further columns
    are read too.

    Args:
        path: the csv file, UTF-8.
        columns: names that the header must have.

    Yields:
        The line number, counted from 1, and the row: column -> value.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no header, a column missing or named twice, a row with too few or too many
            values, or no csv text at all. The message names file and line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.csv")
    ...     _ = path.write_text("image, emotion\na.png, 3")
    ...     list(read_table(path, ["image", "emotion"]))
    [(2, {'image': 'a.png', 'emotion': '3'})]
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or is no file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = _header(path, next(reader, []), columns)
            for values in reader:
                if not values:
                    continue
                if len(values) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(values)} values, but the header "
                        f"names {len(header)} columns"
                    )
                row = zip(header, (value.strip() for value in values), strict=True)
                yield reader.line_num, dict(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num + 1}: no csv text: {error}") from error


def read_whole_number(path: Path, line: int, column: str, text: str) -> int:
    """Read a count or a code from a cell of a table: a whole number, not negative.

    >>> read_whole_number(Path("votes.csv"), 7, "anger", "-1")
    Traceback (most recent call last):
    ...
    ValueError: votes.csv, line 7: anger must be a whole number, not negative, got '-1'
    """
    if not (text.isascii() and text.isdigit()):
        raise ValueError(
            f"{path}, line {line}: {column} must be a whole number, not negative, got {text!r}"
        )
    return int(text)


def check_inside(path: Path, line: int, name: str) -> str:
    r"""Return a file name given by a table, unless it leads out of the folder it is meant for.

    >>> check_inside(Path("labels.csv"), 2, "../secret.png")
    Traceback (most recent call last):
    ...
    ValueError: labels.csv, line 2: '../secret.png' leads out of the images' folder
    """
    if not name:
        raise ValueError(f"{path}, line {line}: the name of the image is empty")
    # Seen with the eyes of either system: "C:\x" and "..\x" are harmless names on one of them only.
    for seen in (PurePosixPath(name), PureWindowsPath(name)):
        if seen.anchor or ".." in seen.parts or "\0" in name:
            raise ValueError(f"{path}, line {line}: {name!r} leads out of the images' folder")
    return name


class NamedOnce:
    """Watches that a table names each sample once.

    Args:
        path: the table, for messages.
        duplicates: the reader's option: ``"error"``, or ``"drop"`` to allow a row that says the
            very same again; ``None`` where the reader has no such option. Rows that contradict each
            other are an error always.

    >>> names = NamedOnce(Path("labels.csv"), "drop")
    >>> [names.is_new(line, "a.png", label) for line, label in ((2, "anger"), (3, "anger"))]
    [True, False]
    >>> names.is_new(4, "a.png", "fear")
    Traceback (most recent call last):
    ...
    ValueError: labels.csv, line 4: a.png is named a second time, after line 2
    """

    def __init__(self, path: Path, duplicates: Duplicates | None = None) -> None:
        if duplicates not in ("error", "drop", None):
            raise ValueError(f"duplicates must be error or drop, got {duplicates!r}")
        self._path = path
        self._duplicates = duplicates
        self._seen: dict[str, tuple[int, int]] = {}

    def is_new(self, line: int, name: str, row: Hashable) -> bool:
        """Whether this is the first row of a name; ``row`` is what the table says of it.

        Raises:
            ValueError: it is not, and may not be.
        """
        # The hash, not the row: a table of half a million rows need not stay in memory.
        file = str(PurePosixPath(name))  # ./a.png is a.png
        first, said = self._seen.setdefault(file, (line, hash(row)))
        if first == line:
            return True
        same = said == hash(row)
        if same and self._duplicates == "drop":
            return False
        hint = ""
        if same:
            cure = "duplicates='drop' counts it once" if self._duplicates else "delete one of them"
            hint = f"; the rows are the same: {cure}"
        raise ValueError(
            f"{self._path}, line {line}: {name} is named a second time, after line {first}{hint}"
        )


def check_files(path: Path, folder: Path, named: Iterable[tuple[int, str]]) -> None:
    """Refuse a table that names files that are not there.

    Args:
        path: the table, for the message.
        folder: where the files lie.
        named: line and name of each; a name may have folders of its own.

    Raises:
        FileNotFoundError: the message names the first line and how many more there are.
    """
    # Listed once: asking after each of thousands of files is slow, on a network above all.
    listed: dict[Path, set[str]] = {}
    missing: list[tuple[int, Path]] = []
    for line, name in named:
        file = folder / name
        if file.parent not in listed:
            there = file.parent.is_dir()
            listed[file.parent] = (
                {found.name for found in file.parent.iterdir()} if there else set()
            )
        if file.name not in listed[file.parent]:
            missing.append((line, file))
    if missing:
        line, file = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{path}, line {line}: {file} is not there{more}")


def _header(path: Path, values: Sequence[str], columns: Sequence[str]) -> list[str]:
    header = [value.strip() for value in values]
    missing = [column for column in columns if column not in header]
    if missing:
        raise ValueError(
            f"{path}, line 1: the header must name the columns {', '.join(columns)}; "
            f"{', '.join(missing)} missing from {', '.join(header) or 'an empty line'}"
        )
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise ValueError(f"{path}, line 1: the header names {', '.join(twice)} twice")
    return header
