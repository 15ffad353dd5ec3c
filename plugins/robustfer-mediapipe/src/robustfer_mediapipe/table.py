"""Keep the results of each image, in memory and in an npz file."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Settings = Mapping[str, object]


class Table:
    """Landmarks of the images of a folder, with a row per image. Unknown ones are NaN.

    Args:
        folder: the folder of the images.
        names: their paths below it.

    Attributes:
        landmarks: float32 (N, 68, 2).
        detected: bool (N), whether the image has a face.
        done: bool (N), whether the image was examined.
        stamps: int64 (N, 2), size of the file in bytes, and time of its last change in nanoseconds.
            They show whether the file changed later.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.names = names
        self.landmarks = np.full((len(names), 68, 2), np.nan, dtype=np.float32)
        self.detected = np.zeros(len(names), dtype=np.bool_)
        self.done = np.zeros(len(names), dtype=np.bool_)
        files = [(folder / name).stat() for name in names]
        self.stamps = np.array([(f.st_size, f.st_mtime_ns) for f in files], np.int64).reshape(-1, 2)

    def put(self, row: int, points: NDArray[np.float32] | None) -> None:
        """Store the result of an image: points, or ``None`` without a face."""
        if points is not None:
            self.landmarks[row], self.detected[row] = points, True
        # Last, because an interrupt can come in between.
        self.done[row] = True

    def take_over(self, path: Path, settings: Settings) -> int:
        """Take the results of unchanged images from a file. Return how many images it has.

        Raises:
            ValueError: the file is not one of this program, or was made with other settings.
        """
        stored = _read(path)
        made_with = json.loads(str(stored["settings"]))
        differing = [key for key in settings if made_with.get(key) != settings[key]]
        if differing:
            raise ValueError(
                f"{path} was made with "
                + ", ".join(f"{key} {made_with.get(key)}, not {settings[key]}" for key in differing)
                + "; remove it, or write to another file"
            )
        rows = {name: row for row, name in enumerate(self.names)}
        images = stored["image"].tolist()
        for old, name in enumerate(images):
            row = rows.get(name)
            if row is not None and np.array_equal(stored["stamps"][old], self.stamps[row]):
                self.put(row, stored["landmarks"][old] if stored["detected"][old] else None)
        return len(images)

    def write(self, path: Path, settings: Settings) -> None:
        """Write the examined images, whole or not at all.

        A replaced file keeps its mode. A symbolic link stays a link.
        """
        target = Path(os.path.realpath(path))
        # Always the same name. A later write then replaces the file of a killed one.
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    image=np.array(self.names, np.str_)[self.done],
                    landmarks=self.landmarks[self.done],
                    detected=self.detected[self.done],
                    stamps=self.stamps[self.done],
                    settings=np.array(json.dumps(dict(settings))),
                )
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


_ARRAYS = ("image", "landmarks", "detected", "stamps", "settings")


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in _ARRAYS}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a file of this program and stays unchanged ({error}); "
            "write to another file"
        ) from error
