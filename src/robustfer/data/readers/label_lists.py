"""Read and write text files with a name and a number per line, such as RAF-DB's labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from robustfer import _shown
from robustfer._files import write_whole
from robustfer._inputs import name_bytes
from robustfer._tables import read_whole_number

_ALIGNED = "_aligned"
_DIGITS = "0123456789"


class Entry(NamedTuple):
    """A line of a label list."""

    line: int
    name: str
    number: int


def read_label_list(path: Path) -> list[Entry]:
    """Read lines with a name and a whole number, separated by spaces, a tab or a comma.

    The number is the last word of a line, so a name can contain spaces, tabs and commas. Empty
    lines are allowed. Bytes that are not UTF-8 are decoded like file names (``os.fsdecode``).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, or is not a file")
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        entries = [
            _entry(path, line, text) for line, text in enumerate(file, start=1) if text.strip()
        ]
    if not entries:
        raise ValueError(f"{path} is empty, expected lines like 'train_00001.jpg 5'")
    return entries


def write_label_list(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    """Write a name and a number per line. Names that cannot be read again are an error."""
    text = b"".join(_line(path, name, number) for name, number in rows)
    write_whole(path, lambda file: file.write(text))


def check_list_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be read again from a list."""
    for name in names:
        _line(Path(), name, 0)


def aligned_name(name: str) -> str:
    """Return the name of an image's aligned copy, from either name."""
    path = PurePosixPath(plain_name(name))
    return str(path.with_name(f"{path.stem}{_ALIGNED}{path.suffix}"))


def plain_name(name: str) -> str:
    """Return the name of an image, from its own or from that of its aligned copy."""
    path = PurePosixPath(name)
    stem = path.stem.removesuffix(_ALIGNED)
    if not stem:  # "/", "." or "_aligned.jpg"
        raise ValueError(f"{name!r} is not the name of a file")
    return str(path.with_name(f"{stem}{path.suffix}"))


def _entry(path: Path, line: int, text: str) -> Entry:
    text = text.strip()
    if "\0" in text:
        raise ValueError(f"{path}, line {line}: it is not text; save the list as UTF-8")
    before = text.rstrip(_DIGITS)
    number = text[len(before) :]
    name = before.rstrip(" \t").removesuffix(",").rstrip(" \t")
    if not number or name in ("", before):
        raise ValueError(
            f"{path}, line {line}: must be a name and a whole number, like 'train_00001.jpg 5', "
            f"got {_shown.value(text)}"
        )
    try:
        plain_name(name.replace("\\", "/"))
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {error}") from None
    return Entry(line, name, read_whole_number(path, line, "a label", number))


def _line(path: Path, name: str, number: int) -> bytes:
    """Return a line of a list. Names with U+2028 are refused: other programs split lines there."""
    if number < 0:
        raise ValueError(f"the label of {name!r} must be 0 or more, got {number}")
    try:
        line = name_bytes(f"{name} {number}")
        read = _entry(path, 1, line.decode("utf-8-sig", "surrogateescape"))
    except ValueError:
        read = None
    if name.splitlines() != [name] or read != (1, name, number):
        raise ValueError(
            f"{name!r} cannot be written to a label list: names must be one non-empty line without "
            "leading or trailing spaces or a trailing comma; rename it"
        )
    return line + b"\n"
