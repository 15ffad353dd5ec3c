"""Find the image files of a folder, and read their pixels as robustfer does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

#: Suffixes of files that are read as images, the same as in robustfer.
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".jpe", ".jfif", ".pbm", ".pnm"}
)
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
_DEEP_MODES = ("I", "F")
MAX_MEGAPIXELS = 50


def find_images(folder: Path) -> list[str]:
    """Return the paths of all images below a folder, relative to it, with ``/``, sorted.

    Links to folders are followed, as robustfer does. Files and folders whose names start with a dot
    are left out.
    """
    return sorted(_walk(folder, ()))


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    here = folder.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:  # a link back to a folder above
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from (f"{path.name}/{name}" for name in _walk(path, (*above, identity)))
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path.name


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as RGB (H, W, 3), turned upright by its EXIF data, without transparency.

    Raises:
        ValueError: the image is damaged, or has more than 50 megapixels or 8 bits per channel.
    """
    try:
        # Given a path, Pillow memory-maps uncompressed TIFF files, and confuses width and height if
        # the image is turned.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_MEGAPIXELS * 1e6:
                raise ValueError(f"more than {MAX_MEGAPIXELS} megapixels")
            if image.mode.split(";")[0] in _DEEP_MODES:
                raise ValueError(f"more than 8 bits per channel (Pillow's mode {image.mode})")
            ImageOps.exif_transpose(image, in_place=True)
            # Pillow warns about dropped transparency of a palette. Converting to RGBA first avoids
            # that.
            colour = image.convert("RGBA") if "transparency" in image.info else image
            return np.array(colour.convert("RGB"))
    except UnidentifiedImageError:
        # Its message only shows the file object.
        raise ValueError(f"it is damaged, or not {', '.join(_FORMATS)}") from None
    except Exception as error:
        # Pillow's decoders raise many kinds of errors for damaged files.
        raise ValueError(str(error) or type(error).__name__) from error
