"""Which files below a folder are images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from robustfer.data.readers.images import IMAGE_SUFFIXES

# Folders that systems and archives make beside pictures, some with small copies of them.
_MADE_BY_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
# Left out in silence they would be missed: they are pictures, but not of a kind that is read.
_OTHER_IMAGES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".tga", ".psd", ".svg", ".ico"}
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is nobody's own: hidden, or made by a system or an archive.

    >>> [is_hidden(name) for name in ("._0.png", "__MACOSX", "happy")]
    [True, True, False]
    """
    return name.startswith(".") or name in _MADE_BY_SYSTEMS


def walk_images(folder: Path, excluded: Counter[str]) -> Iterator[tuple[str, ...]]:
    """Yield the path of each image below a folder, part by part, in no order.

    Args:
        folder: where to look.
        excluded: counts what is left out: reason -> number of files.

    Raises:
        ValueError: an image is a broken link, a pipe or a device, or of a kind that is not read; a
            link leads to a folder above it. The message names it.
    """
    return _walk(folder, (), (), excluded)


def _walk(
    folder: Path, parts: tuple[str, ...], above: tuple[tuple[int, int], ...], excluded: Counter[str]
) -> Iterator[tuple[str, ...]]:
    here = folder.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        raise ValueError(f"{folder} is a link to a folder above it; remove it")
    with os.scandir(folder) as entries:
        for entry in entries:
            ending = Path(entry.name).suffix.strip().lower()
            if is_hidden(entry.name):
                if ending in IMAGE_SUFFIXES:
                    excluded["hidden"] += 1
            elif entry.is_symlink() and not (folder / entry.name).exists():
                raise ValueError(f"{folder / entry.name} is a broken link; take it away")
            elif entry.is_dir():
                inside = folder / entry.name
                yield from _walk(inside, (*parts, entry.name), (*above, identity), excluded)
            elif ending in _OTHER_IMAGES:
                raise ValueError(
                    f"{folder / entry.name} is an image of a kind that is not read; convert it to "
                    "png or jpeg, or take it away"
                )
            elif ending not in IMAGE_SUFFIXES:
                excluded[f"no image by its ending ({ending or 'none'})"] += 1
            elif not entry.is_file():
                raise ValueError(
                    f"{folder / entry.name} is not a regular file, but a pipe or a device; take it "
                    "away"
                )
            else:
                yield (*parts, entry.name)
