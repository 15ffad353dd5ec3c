"""Read csv files that users bring, row by row. Errors name the file and the line."""

from __future__ import annotations

import csv
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from robustfer import _shown

#: What to do with a row that repeats an earlier one.
Duplicates = Literal["error", "drop"]

#: Greatest count or code in a table. Sums and multiples of many still fit into int64.
MAX_WHOLE_NUMBER = 2**31 - 1
_MAX_NUMBER = torch.finfo(torch.float32).max

_WHOLE_NUMBER = re.compile(r"\+?([0-9]+)(?:\.0*)?")


def read_table(
    path: Path, columns: Sequence[str], *, separator: str = ",", hint: str = ""
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a csv file row by row, and yield the line number, from 1, and column -> value.

    Blanks around names and values, a byte-order mark, empty lines and columns without a name are
    ignored.

    Args:
        path: the file, in UTF-8.
        columns: columns that the header must name. It can name others too.
        separator: the character between values.
        hint: what to do if the header does not name a column.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not csv text, or does not fit the header.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is not a file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, delimiter=separator)
        try:
            header = _header(path, next(reader, []), columns, separator, hint)
            unnamed = "" in header
            for values in reader:
                if len(values) != len(header):
                    if not "".join(values).strip():
                        continue
                    raise ValueError(
                        f"{path}, line {reader.line_num}: the row must have a value for each of "
                        f"{len(header)} columns, got {len(values)}"
                    )
                row = dict(zip(header, map(str.strip, values), strict=True))
                if unnamed:
                    del row[""]
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}, line {reader.line_num + 1}: must be csv text in UTF-8: {error}"
            ) from error


def parse_whole_number(text: str) -> int | None:
    """Return the whole number in a text, or ``None``. Data frames write 3 as 3.0."""
    found = _WHOLE_NUMBER.fullmatch(text)
    if found is None:
        return None
    digits = found[1].lstrip("0") or "0"
    # Check the length first, because Python refuses to convert thousands of digits.
    number = int(digits) if len(digits) <= 10 else MAX_WHOLE_NUMBER + 1
    return number if number <= MAX_WHOLE_NUMBER else None


def read_whole_number(
    path: Path, line: int, column: str, text: str, high: int = MAX_WHOLE_NUMBER
) -> int:
    """Return the count or code in a cell of a table, or raise if it is not from 0 to ``high``."""
    number = parse_whole_number(text)
    if number is None or number > high:
        raise ValueError(
            f"{path}, line {line}: {column} must be a whole number from 0 to {high}, got "
            f"{_shown.value(text)}"
        )
    return number


def parse_number(text: str) -> float | None:
    """Return the finite number in a text, or ``None`` also if float32 cannot hold it."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= _MAX_NUMBER else None


def read_points(
    where: str, words: Sequence[str], count: int, *, name: str = "landmarks"
) -> torch.Tensor:
    """Return points as float32 (count, 2), from the numbers x y x y ... of a file.

    Args:
        where: the place in the file, for errors.
        words: the numbers as texts.
        count: the number of points.
        name: what the points are, for errors.
    """
    values = [parse_number(word) for word in words]
    if len(values) != 2 * count or None in values:
        raise ValueError(
            f"{where}: {name} must be {count} points, x and y each, got {len(values)} values, "
            f"{len(values) - values.count(None)} of them numbers: {_shown.value(' '.join(words))}"
        )
    return torch.tensor(values, dtype=torch.float32, device="cpu").view(count, 2)


class NamedOnce:
    """Check that a table names each sample once.

    Rows that contradict each other are always an error.

    Args:
        path: the table, for errors.
        duplicates: what to do with a row that repeats an earlier one. ``None``: an error, whose
            message does not offer the option.
    """

    def __init__(self, path: Path, duplicates: Duplicates | None = None) -> None:
        if duplicates not in ("error", "drop", None):
            raise ValueError(f"duplicates must be error or drop, got {duplicates!r}")
        self._path = path
        self._duplicates = duplicates
        self._seen: dict[str, tuple[int, int]] = {}

    def is_new(self, line: int, name: str, row: Hashable) -> bool:
        """Return whether a name is new, or raise if an earlier row has it.

        Args:
            line: line number of the row.
            name: name of the sample, always in the same spelling.
            row: all that the row says about the sample.
        """
        # Keep only the hash: the rows of a long table would fill the memory.
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


def _header(
    path: Path, values: Sequence[str], columns: Sequence[str], separator: str, hint: str
) -> list[str]:
    header = [value.strip() for value in values]
    missing = [column for column in columns if column not in header]
    if missing:
        apart = re.search("[,;\t|]", values[0]) if len(header) == 1 else None
        if apart:
            hint = f"; the columns must be separated by {separator!r}, not {apart[0]!r}"
        raise ValueError(
            f"{path}, line 1: the header must name the columns {', '.join(columns)}; "
            f"{', '.join(missing)} missing from {', '.join(header) or 'an empty line'}{hint}"
        )
    # Columns that no reader uses count too: of two with one name, only the last would be read.
    twice = [column for column in dict.fromkeys(header) if column and header.count(column) > 1]
    if twice:
        raise ValueError(f"{path}, line 1: the header names {', '.join(twice)} twice")
    return header
