"""Tables that users bring: csv files read row by row, every mistake named with file and line."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import torch

from robustfer import _shown

#: What to do with something that a table names again in the very same words.
Duplicates = Literal["error", "drop"]

#: robustfer's name of a split -> the names that a table or a folder may have for it.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}

#: Greatest count or code in a table: sums and multiples of many still fit into int64.
MAX_WHOLE_NUMBER = 2**31 - 1
_MAX_NUMBER = torch.finfo(torch.float32).max

_WHOLE_NUMBER = re.compile(r"\+?([0-9]+)(?:\.0*)?")
_DRIVE = re.compile(r"[A-Za-z]:")
# A name that needs no second look: no backslash, drive or NUL, no part empty or begun with a dot.
_PLAIN = re.compile(r"[^./\\:\0][^/\\:\0]*(?:/[^./\\:\0][^/\\:\0]*)*")


def read_table(
    path: Path, columns: Sequence[str], *, separator: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a csv file row by row: the line number, from 1 on, and column -> value.

    The header must name ``columns`` and may name others. Blanks around names and values, a
    byte-order mark, empty lines and columns without a name are left out. Anything else is a
    ValueError that names file and line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is not a file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, delimiter=separator)
        try:
            header = _header(path, next(reader, []), columns, separator)
            unnamed = "" in header
            for values in reader:
                if len(values) != len(header):
                    if not "".join(values).strip():
                        continue
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(values)} values, but the header "
                        f"names {len(header)} columns"
                    )
                row = dict(zip(header, map(str.strip, values), strict=True))
                if unnamed:
                    del row[""]
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num + 1}: no csv text: {error}") from error


def parse_whole_number(text: str) -> int | None:
    """Return the whole number that a text stands for, else None. Data frames write 3 as 3.0."""
    found = _WHOLE_NUMBER.fullmatch(text)
    if found is None:
        return None
    digits = found[1].lstrip("0") or "0"
    # The length first: Python refuses to convert thousands of digits.
    number = int(digits) if len(digits) <= 10 else MAX_WHOLE_NUMBER + 1
    return number if number <= MAX_WHOLE_NUMBER else None


def read_whole_number(
    path: Path, line: int, column: str, text: str, high: int = MAX_WHOLE_NUMBER
) -> int:
    """Read a count or a code, at most ``high``, from a cell of a table."""
    number = parse_whole_number(text)
    if number is None or number > high:
        raise ValueError(
            f"{path}, line {line}: {column} must be a whole number from 0 to {high}, got "
            f"{_shown.value(text)}"
        )
    return number


def parse_number(text: str) -> float | None:
    """Return the finite number that a text stands for and float32 can hold, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= _MAX_NUMBER else None


def read_points(
    where: str, words: Sequence[str], count: int, *, name: str = "landmarks"
) -> torch.Tensor:
    """Return ``count`` points as float32 (count, 2), from the numbers x y x y ... of a file."""
    values = [parse_number(word) for word in words]
    if len(values) != 2 * count or None in values:
        raise ValueError(
            f"{where}: {name} must be {count} points, x and y each, got {len(values)} values, "
            f"{len(values) - values.count(None)} of them numbers: {_shown.value(' '.join(words))}"
        )
    return torch.tensor(values, dtype=torch.float32, device="cpu").view(count, 2)


def absolute_starts(folder: Path) -> tuple[str, ...]:
    """Return what the absolute paths of files below a folder begin with, for `check_inside`."""
    spellings = dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder)))  # noqa: PTH100
    return tuple(_comparable(name).rstrip("/") + "/" for name in spellings)


def check_inside(path: Path, line: int, name: str, starts: Sequence[str] = ()) -> str:
    """Return the file name of a table's row, relative to the folder it is meant for.

    Backslashes count as slashes. An absolute path is accepted only below the folder, and by
    ``starts`` from :func:`absolute_starts`.
    """
    if _PLAIN.fullmatch(name):  # PurePosixPath would take most of the time of a long table
        return name
    if not name:
        raise ValueError(f"{path}, line {line}: the name of the image is empty")
    inside = name.replace("\\", "/")
    if inside.rpartition("/")[2].startswith("._"):
        raise ValueError(
            f"{path}, line {line}: {name!r} is not an image, but a file that macOS adds to archives"
        )
    if "\0" in inside or ".." in inside.split("/"):
        raise ValueError(f"{path}, line {line}: {name!r} leads out of the images' folder")
    # With the eyes of either system: "C:\x" is a harmless name on one of them only.
    if inside[0] == "/" or _DRIVE.match(inside):
        seen = _comparable(inside)
        start = next((start for start in starts if seen.startswith(start)), None)
        if start is None:
            cure = ": write it relative to that folder"
            if starts:
                cure = f" {starts[0]}: give root=, a folder above the images, or relative paths"
            raise ValueError(
                f"{path}, line {line}: the absolute path {name!r} leads out of the images' folder"
                + cure
            )
        inside = inside[len(start) :]
    return str(PurePosixPath(inside))


class NamedOnce:
    """Watches that a table names each sample once.

    ``duplicates="drop"`` allows a row that says the very same again; ``None`` is for a reader
    without this option. Rows that contradict each other are always an error.
    """

    def __init__(self, path: Path, duplicates: Duplicates | None = None) -> None:
        if duplicates not in ("error", "drop", None):
            raise ValueError(f"duplicates must be error or drop, got {duplicates!r}")
        self._path = path
        self._duplicates = duplicates
        self._seen: dict[str, tuple[int, int]] = {}

    def is_new(self, line: int, name: str, row: Hashable) -> bool:
        """Whether a row, and what it says, is the first of a name spelt by `check_inside`."""
        # The hash, not the row: a table of half a million rows need not stay in memory.
        first, said = self._seen.setdefault(name, (line, hash(row)))
        if first == line:
            return True
        same = said == hash(row)
        if same and self._duplicates == "drop":
            return False
        cure = "duplicates='drop' counts it once" if self._duplicates else "delete one of them"
        raise ValueError(
            f"{self._path}, line {line}: {name} is named a second time, after line {first}"
            + (f"; the rows are the same: {cure}" if same else "")
        )


def check_split(split: str | None) -> None:
    """Refuse what is neither a split nor ``None``."""
    if split not in (None, *SPLITS):
        raise ValueError(f"split must be None or one of {', '.join(SPLITS)}, got {split!r}")


def existing_folder(folder: str | Path) -> Path:
    """Return the path of a folder that is there, ``~`` being the home folder."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"the folder {path} does not exist")
    return path


def check_files(path: Path, folder: Path, named: Iterable[tuple[int, str]]) -> None:
    """Refuse a table that names files that are missing or not regular."""
    # List folders once: looking up thousands of files one by one is slow on a network.
    listed: set[str] = set()
    regular: dict[str, bool] = {}
    missing: list[tuple[int, str]] = []
    for line, name in named:
        if regular.get(name):
            continue
        below = name.rpartition("/")[0]
        if below not in listed and (folder / below).is_dir():
            start = f"{below}/" if below else ""
            with os.scandir(folder / below) as entries:
                regular.update((start + entry.name, _is_regular(entry)) for entry in entries)
        listed.add(below)
        if name not in regular:
            missing.append((line, name))
        elif not regular[name]:
            raise ValueError(
                f"{path}, line {line}: {folder / name} is not a regular file, but a folder, a "
                "broken link, a pipe or a device"
            )
    if missing:
        line, name = missing[0]
        near = next((found for found in regular if _loose(found) == _loose(name)), None)
        hint = f"; there is {near!r}" if near else ""
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{path}, line {line}: {folder / name} does not exist{hint}{more}")


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads back to itself
        return False


def _comparable(path: str) -> str:
    return os.path.normcase(path).replace("\\", "/")


def _loose(name: str) -> str:
    """A name without what file systems and archives change: case, and how accents are coded."""
    return unicodedata.normalize("NFC", name).casefold()


def _header(path: Path, values: Sequence[str], columns: Sequence[str], separator: str) -> list[str]:
    header = [value.strip() for value in values]
    missing = [column for column in columns if column not in header]
    if missing:
        apart = re.search("[,;\t|]", values[0]) if len(header) == 1 else None
        hint = (
            f"; the columns must be separated by {separator!r}, not {apart[0]!r}" if apart else ""
        )
        raise ValueError(
            f"{path}, line 1: the header must name the columns {', '.join(columns)}; "
            f"{', '.join(missing)} missing from {', '.join(header) or 'an empty line'}{hint}"
        )
    # Also a name that nobody needs yet: a later reader would get the last of the two.
    twice = [column for column in dict.fromkeys(header) if column and header.count(column) > 1]
    if twice:
        raise ValueError(f"{path}, line 1: the header names {', '.join(twice)} twice")
    return header
