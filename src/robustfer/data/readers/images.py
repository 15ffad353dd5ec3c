"""Image files: which they are, and as uint8 tensors, with limits on what they may do."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile
from torch import Tensor
from tqdm.auto import tqdm

from robustfer._checks import check_bool, check_whole_number
from robustfer.data.dataset import LabeledFaces
from robustfer.landmarks.geometry import resize_points

#: File name endings that are taken for images.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".jpe", ".jfif", ".pbm", ".pnm"}
)
# Folders that systems and archives make beside pictures, some with small copies of them.
_MADE_BY_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
# Left out in silence they would be missed: they are pictures, but not of a kind that is read.
_OTHER_IMAGES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".tga", ".psd", ".svg", ".ico"}
)
MAX_MEGAPIXELS = 50

# Named, because Pillow would otherwise choose a decoder by the file's content and
# ignore its ending. It would even start Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")


class Box(NamedTuple):
    """A part of an image, in pixels; ``right`` and ``bottom`` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int


def read_image(path: str | Path, *, size: int | None = None, box: Box | None = None) -> Tensor:
    """Read an image file as uint8 (3, H, W): upright as its EXIF data say, without transparency.

    Args:
        path: PNG, JPEG, BMP, WebP, TIFF or PPM file, at most 50 megapixels and 8 bits per
            channel.
        size: side of the square to resize to, in pixels; ``None`` keeps the image's size.
        box: the part to cut out first, black where it lies outside the image.
    """
    try:
        # Opening a pipe waits for a writer, and a device may never end.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("it is not a regular file, but a folder, a pipe or a device")
        # Opened here: by its path, Pillow maps an uncompressed TIFF that lies on its side into
        # memory with width for height.
        with Path(path).open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            return decode(image, size=size, box=box)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:  # its text shows the open file as an object
        raise ValueError(
            f"{path} cannot be read as an image: it is damaged, or not {', '.join(_FORMATS)}"
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files.
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def decode(image: Image.Image, *, size: int | None = None, box: Box | None = None) -> Tensor:
    """Return an image of Pillow as :func:`read_image` returns that of a file."""
    _check_area(image.width, image.height, "it")
    if image.mode.split(";")[0] in ("I", "F"):
        raise ValueError(
            f"it has more than 8 bits per channel (Pillow's mode {image.mode}); "
            "convert it to 8 bits"
        )
    upright = ImageOps.exif_transpose(image)
    # Pillow warns when it drops the transparency of a palette, unless by way of RGBA.
    colour = upright.convert("RGBA") if "transparency" in upright.info else upright
    colour = colour.convert("RGB")
    if box is not None:
        _check_area(box.right - box.left, box.bottom - box.top, f"the box {tuple(box)}")
        colour = colour.crop(box)
    if size is not None:
        colour = colour.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(colour)).permute(2, 0, 1).contiguous()


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


class FileFaces(LabeledFaces):
    """A data set whose images are files of one size below a folder.

    Args:
        folder: where the files lie.
        names: their paths below it; default: the ids.
        size: side of the square to resize to, in pixels; ``None``: all must be as large as the
            first.
        boxes: the part to cut out of each image before.
        in_memory: read all files now (3 * H * W bytes per image) and none later.
        labels: what :class:`LabeledFaces` takes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        names: Sequence[str] | None = None,
        size: int | None = None,
        boxes: Sequence[Box] | None = None,
        in_memory: bool = False,
        **labels: Any,
    ) -> None:
        self._size = None if size is None else check_whole_number("size", size, 1)
        check_bool("in_memory", in_memory)
        super().__init__(**labels)
        self._folder, self._boxes = folder, boxes
        self._names = self.all_ids if names is None else names
        self._shape = self._read(0).shape
        self._images: Tensor | None = None
        if in_memory:
            count = len(self._names)
            images = torch.empty((count, *self._shape), dtype=torch.uint8, device="cpu")
            for row in tqdm(range(count), desc=f"reading {folder.name}", disable=None):
                images[row] = self.load_image(row)
            self._images = images

    def load_image(self, row: int) -> Tensor:
        if self._images is not None:
            # A copy: whoever changes it in place must not change what is remembered.
            return self._images[row].clone()
        image = self._read(row)
        if image.shape != self._shape:
            raise ValueError(
                f"{self._folder / self._names[row]} has {_shown(image.shape)} pixels, but "
                f"{self._names[0]} has {_shown(self._shape)}; give size= to resize all to one size"
            )
        return image

    def place(self, row: int, points: Tensor) -> Tensor:
        """Return where points (K, 2) of a file, in its pixels, lie in the image as it is read."""
        box = None if self._boxes is None else self._boxes[row]
        if box is not None:
            points = points - points.new_tensor([box.left, box.top])
        if self._size is None:
            return points.clone()
        width, height = (
            _upright_size(self._folder / self._names[row])
            if box is None
            else (box.right - box.left, box.bottom - box.top)
        )
        return resize_points(points, (height, width), (self._size, self._size))

    def _read(self, row: int) -> Tensor:
        box = None if self._boxes is None else self._boxes[row]
        return read_image(self._folder / self._names[row], size=self._size, box=box)


def _upright_size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):
            # Some versions of Pillow give the size of a TIFF as it stands upright already.
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        quarter_turn = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (height, width) if quarter_turn else (width, height)


def _check_area(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{what} is empty")
    megapixels = width * height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise ValueError(f"{what} has {megapixels:.0f} megapixels, more than {MAX_MEGAPIXELS}")


def _shown(shape: torch.Size) -> str:
    return f"{shape[2]} x {shape[1]}"
