"""The image files of a folder, and their pixels as robustfer reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

#: File name endings that are taken for images; robustfer's own.
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".jpe", ".jfif", ".pbm", ".pnm"}
)
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
_DEEP_MODES = ("I", "F")
MAX_MEGAPIXELS = 50


def find_images(folder: Path) -> list[str]:
    """Return the paths of all images below a folder, relative to it, with ``/``, sorted.

    Files and folders whose names begin with a dot are left out.
    """
    below = (path.relative_to(folder) for path in folder.rglob("*"))
    return sorted(
        path.as_posix()
        for path in below
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.parts)
        and (folder / path).is_file()
    )


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image upright as its EXIF data say, (H, W, 3), RGB; transparency is dropped.

    Raises:
        ValueError: unreadable, truncated, of more than 50 megapixels or 8 bits per channel.
    """
    try:
        # Opened here: by its path, Pillow maps an uncompressed TIFF that lies on its side into
        # memory with width for height.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_MEGAPIXELS * 1e6:
                raise ValueError(f"more than {MAX_MEGAPIXELS} megapixels")
            if image.mode.split(";")[0] in _DEEP_MODES:
                raise ValueError(f"more than 8 bits per channel (Pillow's mode {image.mode})")
            ImageOps.exif_transpose(image, in_place=True)
            # Pillow warns when it drops the transparency of a palette, unless by way of RGBA.
            colour = image.convert("RGBA") if "transparency" in image.info else image
            return np.array(colour.convert("RGB"))
    except UnidentifiedImageError:  # its text shows the open file as an object
        raise ValueError(f"it is damaged, or not {', '.join(_FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files.
        raise ValueError(str(error) or type(error).__name__) from error
