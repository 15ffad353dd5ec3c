"""Find image files, and read them as uint8 tensors within safe limits."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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

#: Suffixes of files that are read as images.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".jpe", ".jfif", ".pbm", ".pnm"}
)
# Folders that systems and archives add, some with small copies of images.
_MADE_BY_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
# Images of formats that are not read. They are an error, because skipping them would go unnoticed.
_OTHER_IMAGES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".tga", ".psd", ".svg", ".ico"}
)
MAX_MEGAPIXELS = 50

# Without this list Pillow would try every format, for example with Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")


class UnreadableImageError(ValueError):
    """A file cannot be read as an image."""


class Box(NamedTuple):
    """A part of an image, in pixels. ``right`` and ``bottom`` are the first pixels outside."""

    left: int
    top: int
    right: int
    bottom: int


def read_image(path: str | Path, *, size: int | None = None, box: Box | None = None) -> Tensor:
    """Read an image file as uint8 (3, H, W), turned upright by its EXIF data, without transparency.

    Args:
        path: PNG, JPEG, BMP, WebP, TIFF or PPM file with at most 50 megapixels, 8 bits per channel.
        size: side of the square to resize to, in pixels. ``None`` keeps the image's size.
        box: the part to crop first. It is black outside the image.

    Raises:
        FileNotFoundError: the file does not exist.
        UnreadableImageError: it is damaged, too large, or not such an image.
    """
    try:
        # Opening a pipe would wait for a writer, and a device can be endless.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise ValueError("it is not a regular file, but a folder, a pipe or a device")
        # Given a path, Pillow memory-maps uncompressed TIFF files, and confuses width and height if
        # the image is turned.
        with Path(path).open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            return decode(image, size=size, box=box)
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:  # its message only shows the file object
        raise UnreadableImageError(
            f"{path} cannot be read as an image: it is damaged, or not {', '.join(_FORMATS)}"
        ) from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        raise UnreadableImageError(f"{path} cannot be read as an image: {error}") from error


def decode(image: Image.Image, *, size: int | None = None, box: Box | None = None) -> Tensor:
    """Convert a Pillow image to the tensor that :func:`read_image` returns."""
    _check_area(image.width, image.height, "it")
    if image.mode.split(";")[0] in ("I", "F"):
        raise ValueError(
            f"it has more than 8 bits per channel (Pillow's mode {image.mode}); convert it to 8 "
            "bits"
        )
    upright = ImageOps.exif_transpose(image)
    # Pillow warns about dropped transparency of a palette. Converting to RGBA first avoids that.
    colour = upright.convert("RGBA") if "transparency" in upright.info else upright
    colour = colour.convert("RGB")
    if box is not None:
        _check_area(box.right - box.left, box.bottom - box.top, f"the box {tuple(box)}")
        colour = colour.crop(box)
    if size is not None:
        colour = colour.resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(colour)).permute(2, 0, 1).contiguous()


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or was added by a system or an archive."""
    return name.startswith(".") or name in _MADE_BY_SYSTEMS


def _raise(message: str) -> None:
    raise ValueError(message)


def walk_images(
    folder: Path,
    excluded: Counter[str],
    above: tuple[tuple[int, int], ...] = (),
    *,
    on_problem: Callable[[str], object] = _raise,
) -> Iterator[tuple[str, ...]]:
    """Yield the path of each image below a folder, as a tuple of parts, in no order.

    ``excluded`` counts left out files by reason. ``above`` are the parent folders. ``on_problem``
    gets the message for a file or link that cannot be an image. By default it is raised.
    """
    here = folder.stat()
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        on_problem(f"{folder} is a link to a folder above it; remove it")
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            ending = path.suffix.strip().lower()
            if is_hidden(entry.name):
                if ending in IMAGE_SUFFIXES:
                    excluded["hidden"] += 1
            elif entry.is_symlink() and not path.exists():
                on_problem(f"{path} is a broken link; remove it")
            elif entry.is_dir():
                inside = walk_images(path, excluded, (*above, identity), on_problem=on_problem)
                for parts in inside:
                    yield (entry.name, *parts)
            elif ending in _OTHER_IMAGES:
                on_problem(
                    f"{path} is an image of a format that is not read; convert it to png or jpeg, "
                    "or remove it"
                )
            elif ending not in IMAGE_SUFFIXES:
                excluded[f"no image by its ending ({ending or 'none'})"] += 1
            elif not entry.is_file():
                on_problem(f"{path} is not a regular file, but a pipe or a device; remove it")
            else:
                yield (entry.name,)


class FileFaces(LabeledFaces):
    """Load the images of a data set from files below a folder. All images have one size.

    Args:
        folder: the folder of the files.
        names: the paths of the files below it. Default: the ids.
        size: side of the square to resize to, in pixels. ``None``: all must have the first one's
            size.
        boxes: the part of each image to crop before resizing.
        in_memory: read all files at once and keep them, 3 * H * W bytes each.
        labels: arguments of :class:`LabeledFaces`.

    Attributes:
        file_names: the paths of the files below the folder, by row of the whole data set.
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
        # Absolute, because files are read later, when the program may be in another folder.
        self._folder, self._boxes = folder.absolute(), boxes
        self.file_names = self.all_ids if names is None else names
        self._shape = self._read(0).shape
        self._images: Tensor | None = None
        if in_memory:
            count = len(self.file_names)
            images = torch.empty((count, *self._shape), dtype=torch.uint8, device="cpu")
            for row in tqdm(range(count), desc=f"reading {folder.name}", disable=None):
                images[row] = self.load_image(row)
            self._images = images

    def load_image(self, row: int) -> Tensor:
        if self._images is not None:
            # A copy, because the caller may change it in place.
            return self._images[row].clone()
        image = self._read(row)
        if image.shape != self._shape:
            raise ValueError(
                f"{self._folder / self.file_names[row]} has {_shown(image.shape)} pixels, expected "
                f"the {_shown(self._shape)} of {self.file_names[0]}; pass size= to resize all "
                "images (in a command: the option size of the reader)"
            )
        return image

    def place(self, row: int, points: Tensor) -> Tensor:
        """Convert points (K, 2) from pixels of the file to pixels of the loaded image."""
        box = None if self._boxes is None else self._boxes[row]
        if box is not None:
            points = points - points.new_tensor([box.left, box.top])
        if self._size is None:
            return points.clone()
        width, height = (
            _upright_size(self._folder / self.file_names[row])
            if box is None
            else (box.right - box.left, box.bottom - box.top)
        )
        return resize_points(points, (height, width), (self._size, self._size))

    def _read(self, row: int) -> Tensor:
        box = None if self._boxes is None else self._boxes[row]
        return read_image(self._folder / self.file_names[row], size=self._size, box=box)


def _upright_size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):
            # Some versions of Pillow already give the upright size of a TIFF.
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        quarter_turn = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (height, width) if quarter_turn else (width, height)


def _check_area(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{what} is empty")
    megapixels = width * height / 1e6
    if megapixels > MAX_MEGAPIXELS:
        raise ValueError(
            f"{what} has {megapixels:.0f} megapixels, expected at most {MAX_MEGAPIXELS}; make it "
            "smaller"
        )


def _shown(shape: torch.Size) -> str:
    return f"{shape[2]} x {shape[1]}"
