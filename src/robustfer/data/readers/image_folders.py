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
    """Whether a file or folder is nobody's own: hidden, or made by a system or an archive."""
    return name.startswith(".") or name in _MADE_BY_SYSTEMS


def walk_images(
    folder: Path, excluded: Counter[str], above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the path of each image below a folder, part by part, in no order.

    ``excluded`` counts the files left out by reason; ``above`` are the folders that it lies in.
    """
    here = folder.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        raise ValueError(f"{folder} is a link to a folder above it; remove it")
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            ending = path.suffix.strip().lower()
            if is_hidden(entry.name):
                if ending in IMAGE_SUFFIXES:
                    excluded["hidden"] += 1
            elif entry.is_symlink() and not path.exists():
                raise ValueError(f"{path} is a broken link; take it away")
            elif entry.is_dir():
                for parts in walk_images(path, excluded, (*above, identity)):
                    yield (entry.name, *parts)
            elif ending in _OTHER_IMAGES:
                raise ValueError(
                    f"{path} is an image of a kind that is not read; convert it to png or jpeg, or "
                    "take it away"
                )
            elif ending not in IMAGE_SUFFIXES:
                excluded[f"no image by its ending ({ending or 'none'})"] += 1
            elif not entry.is_file():
                raise ValueError(
                    f"{path} is not a regular file, but a pipe or a device; take it away"
                )
            else:
                yield (entry.name,)
