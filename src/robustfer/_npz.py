"""Read npz files that users bring."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile


@contextmanager
def plain_arrays(path: Path) -> Iterator[NpzFile]:
    """Open an npz file. Arrays of objects, which could run code, and damaged files are errors.

    Read the arrays inside the context: this gives any error of it the name of the file.
    """
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            yield file
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} must be an npz file of plain arrays: {error}; write it with numpy.savez"
        ) from error
