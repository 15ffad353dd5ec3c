"""Check the folders that users give, and the names of images in their tables."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

#: robustfer's name of a split -> the names that a table or a folder can have for it.
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}

_DRIVE = re.compile(r"[A-Za-z]:")
# A name without a backslash, a drive, a NUL, an empty part, or a part that starts with a dot.
_PLAIN = re.compile(r"[^./\\:\0][^/\\:\0]*(?:/[^./\\:\0][^/\\:\0]*)*")


def check_split(split: str | None) -> None:
    """Require the name of a split, or ``None``."""
    if split not in (None, *SPLITS):
        raise ValueError(f"split must be None or one of {', '.join(SPLITS)}, got {split!r}")


def existing_folder(folder: str | Path) -> Path:
    """Return the absolute path of a folder, or raise if it does not exist. ``~`` is the home."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"the folder {path} does not exist")
    return path.absolute()


def absolute_starts(folder: Path) -> tuple[str, ...]:
    """Return how the absolute paths of files in a folder start, for :func:`check_inside`."""
    spellings = dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder)))  # noqa: PTH100
    return tuple(_comparable(name).rstrip("/") + "/" for name in spellings)


def check_inside(path: Path, line: int, name: str, starts: Sequence[str] = ()) -> str:
    """Return the name of an image relative to its folder, or raise if it leads out of it.

    Args:
        path: the table, for errors.
        line: line number in it, for errors.
        name: the name in the table. Backslashes count as slashes.
        starts: result of :func:`absolute_starts`. Without it an absolute path is an error.
    """
    # PurePosixPath would take most of the time of a long table.
    if _PLAIN.fullmatch(name):
        return name
    if not name:
        raise ValueError(f"{path}, line {line}: the name of the image is empty")
    inside = name.replace("\\", "/")
    if inside.rpartition("/")[2].startswith("._"):
        raise ValueError(
            f"{path}, line {line}: {name!r} is not an image, but a file that macOS adds to "
            "archives; delete the row"
        )
    if "\0" in inside or ".." in inside.split("/"):
        raise ValueError(f"{path}, line {line}: {name!r} leads out of the images' folder")
    # Some systems take C:/x for a name inside the folder. Here it is an absolute path on all.
    if inside[0] == "/" or _DRIVE.match(inside):
        seen = _comparable(inside)
        start = next((start for start in starts if seen.startswith(start)), None)
        if start is None:
            cure = "; write it relative to that folder"
            if starts:
                cure = f" {starts[0]}; pass root=, a folder above the images, or relative paths"
            raise ValueError(
                f"{path}, line {line}: the absolute path {name!r} leads out of the images' folder"
                + cure
            )
        inside = inside[len(start) :]
    return str(PurePosixPath(inside))


def check_files(path: Path, folder: Path, named: Iterable[tuple[int, str]]) -> None:
    """Require that all files that a table names are regular files.

    Args:
        path: the table, for errors.
        folder: the folder of the files.
        named: line number and relative name of each file.
    """
    # List folders once, because looking up thousands of files is slow on a network.
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
                f"{path}, line {line}: {folder / name} must be a regular file, got a folder, a "
                "broken link, a pipe or a device"
            )
    if missing:
        line, name = missing[0]
        near = next((found for found in regular if _loose(found) == _loose(name)), None)
        hint = f"; did you mean {near!r}?" if near else ""
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{path}, line {line}: {folder / name} does not exist{hint}{more}")


def _is_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        # A link that leads back to itself.
        return False


def _comparable(path: str) -> str:
    return os.path.normcase(path).replace("\\", "/")


def _loose(name: str) -> str:
    """Return a name without case and the coding of accents, which archives can change."""
    return unicodedata.normalize("NFC", name).casefold()
