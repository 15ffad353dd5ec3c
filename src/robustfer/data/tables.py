"""Tables that users bring: csv files read row by row, every mistake named with file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath


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
    # Seen with the eyes of either system: "C:\x" and "..\x" are harmless names on one of them only.
    for seen in (PurePosixPath(name), PureWindowsPath(name)):
        if seen.anchor or ".." in seen.parts or "\0" in name:
            raise ValueError(f"{path}, line {line}: {name!r} leads out of the images' folder")
    return name


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
