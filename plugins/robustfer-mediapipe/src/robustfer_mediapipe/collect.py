"""Find the landmarks of all images of a folder. A stopped run can continue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from robustfer_mediapipe.images import find_images, read_image
from robustfer_mediapipe.table import Settings, Table

#: Pixels (H, W, 3) -> points (68, 2), or None without a face.
Finder: TypeAlias = Callable[[NDArray[np.uint8]], "NDArray[np.float32] | None"]


class Summary(NamedTuple):
    """The contents of the file, and what this run added."""

    images: int
    faces: int
    #: Images examined in this run.
    new: int
    #: Name -> what is wrong with it.
    unreadable: dict[str, str]


def collect(
    folder: Path,
    output: Path,
    make_finder: Callable[[], Finder],
    settings: Settings,
    *,
    seconds: float = 30.0,
) -> Summary:
    """Write the landmarks of all images below a folder to a file.

    An existing file keeps its unchanged images. Images that were deleted or cannot be read are not
    in it. ``output`` is written at the end. Until then the results are in ``output.partial``.

    Args:
        folder: the folder of the images, which can be in subfolders.
        output: the npz file.
        make_finder: makes the function that finds points. It is called only if there is work.
        settings: what the points depend on. A file made with other settings is an error.
        seconds: time between two saves. It is longer if a save takes more than a twentieth of it.

    Raises:
        ValueError: there is no image, none can be read, or an existing file does not fit.
        KeyboardInterrupt: interrupted. The message says what is kept.
    """
    names = find_images(folder)
    if not names:
        raise ValueError(f"{folder} has no image")
    table = Table(folder, names)
    partial = output.with_name(f"{output.name}.partial")
    from_before = [table.take_over(path, settings) for path in (output, partial) if path.exists()]
    rows = np.flatnonzero(~table.done).tolist()
    if not rows and from_before == [len(names)]:
        return Summary(len(names), int(table.detected.sum()), 0, {})

    unreadable: dict[str, str] = {}
    try:
        if rows:
            finder = make_finder()
            for row in _saving(table, partial, settings, rows, seconds):
                try:
                    pixels = read_image(folder / names[row])
                except ValueError as error:
                    unreadable[names[row]] = str(error)
                else:
                    table.put(row, finder(pixels))
    except KeyboardInterrupt:
        table.write(partial, settings)
        raise KeyboardInterrupt(
            f"stopped; {table.done.sum()} of {len(names)} images are kept in {partial}, and the "
            "same command goes on from there"
        ) from None

    if len(unreadable) == len(names):
        name, reason = next(iter(unreadable.items()))
        raise ValueError(f"none of the {len(names)} images can be read; {name}: {reason}")
    table.write(output, settings)
    partial.unlink(missing_ok=True)
    return Summary(
        images=int(table.done.sum()),
        faces=int(table.detected.sum()),
        new=len(rows) - len(unreadable),
        unreadable=unreadable,
    )


def _saving(
    table: Table, path: Path, settings: Settings, rows: list[int], seconds: float
) -> Iterator[int]:
    """Yield the rows to examine with a progress bar, and save the table from time to time."""
    total = len(table.names)
    due = time.monotonic() + seconds
    for row in tqdm(rows, initial=total - len(rows), total=total, unit="image", disable=None):
        yield row
        began = time.monotonic()
        if began >= due:
            table.write(path, settings)
            now = time.monotonic()
            due = now + max(seconds, 20 * (now - began))
