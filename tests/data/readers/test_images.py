import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustfer.data.readers.images import Box, FileFaces, read_image
from tests.data.trees import write_image


def opened(folder: Path, names: list[str], **options: object) -> FileFaces:
    targets = [0] * len(names)
    return FileFaces(folder, classes=("a", "b"), ids=names, targets=targets, **options)


def test_colours_and_axes(tmp_path: Path) -> None:
    pixels = torch.randint(256, (5, 4, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.is_contiguous()
    assert torch.equal(image, pixels.permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_gives_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (6, 5), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 5, 6)
    assert image.unique().tolist() == [255]


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    assert read_image(tmp_path / "a.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees to see it upright
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 8, 4)


def test_resized_to_a_square(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", grey=9, size=(30, 20))
    image = read_image(tmp_path / "a.png", size=12)
    assert image.shape == (3, 12, 12)
    assert image.unique().tolist() == [9]


def test_no_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        read_image(tmp_path / "a.png")


def test_truncated_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("side", [7_100, 10_000, 14_000])
def test_too_many_pixels(tmp_path: Path, side: int) -> None:
    # From the second on Pillow itself warns, from the third on it refuses. The header is enough.
    (tmp_path / "huge.pbm").write_bytes(f"P4 {side} {side}\n".encode())
    with pytest.raises(ValueError, match=r"huge\.pbm cannot be read as an image: .*(50|limit)"):
        read_image(tmp_path / "huge.pbm")


def test_too_many_bits(tmp_path: Path) -> None:
    Image.new("I;16", (4, 4)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png .* more than 8 bits per channel"):
        read_image(tmp_path / "deep.png")


def test_no_ghostscript_behind_an_innocent_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match="it is damaged, or not PNG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_not_a_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"a\.png cannot be read .* it is not a regular file"):
        read_image(path)


def test_missing_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("in_memory", [False, True])
def test_files_of_one_size(tmp_path: Path, in_memory: bool) -> None:
    names = [f"{grey}.png" for grey in range(3)]
    for grey, name in enumerate(names):
        write_image(tmp_path / name, grey=grey)
    files = opened(tmp_path, names, in_memory=in_memory)
    assert [int(files.load_image(row).max()) for row in range(3)] == [0, 1, 2]
    files.load_image(1).zero_()
    assert int(files.load_image(1).max()) == 1


def test_in_memory_reads_no_file_again(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", grey=5)
    files = opened(tmp_path, ["a.png"], in_memory=True)
    path.unlink()
    assert files.load_image(0).unique().tolist() == [5]


def test_files_of_two_sizes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", size=(48, 48))
    write_image(tmp_path / "b.png", size=(50, 40))
    message = r"b\.png has 50 x 40 pixels, expected the 48 x 48 of a\.png; pass size="
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, ["a.png", "b.png"]).load_image(1)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, ["a.png", "b.png"], in_memory=True)
    assert opened(tmp_path, ["a.png", "b.png"], size=32).load_image(1).shape == (3, 32, 32)


def test_size_out_of_range(tmp_path: Path) -> None:
    for size in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"size must be a whole number from 1 on, got {size}"):
            opened(tmp_path, ["a.png"], size=size)


# How an image with a tag of EXIF's orientation is stored: the other way round than it is shown.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: np.rot90,
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: np.rot90(pixels, -1),
}


@pytest.mark.parametrize("box", [None, Box(-6, 4, 30, 22)])
@pytest.mark.parametrize("size", [None, 24, 96])
@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_points_move_with_the_image(
    tmp_path: Path, box: Box | None, size: int | None, orientation: int, ending: str
) -> None:
    # A bright square whose middle is where the point should be, cut out, resized and turned.
    upright = np.zeros((40, 30), dtype=np.uint8)
    upright[8:13, 14:19] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    image.save(tmp_path / f"a.{ending}", exif=exif, **how)
    files = opened(tmp_path, [f"a.{ending}"], size=size, boxes=None if box is None else [box])
    if size is None and box is None:
        assert files.load_image(0).shape == (3, 40, 30)
    weight = files.load_image(0)[0].double()
    ys, xs = torch.meshgrid(*map(torch.arange, weight.shape), indexing="ij")
    middle = [float((weight * axis).sum() / weight.sum()) for axis in (xs, ys)]
    placed = files.place(0, torch.tensor([[16.0, 10.0]]))[0].tolist()
    assert placed == pytest.approx(middle, abs=0.06)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (20, 10)).save(tmp_path / f"a.{ending}", exif=exif)
    assert read_image(tmp_path / f"a.{ending}").shape == (3, 10, 20)
    files = opened(tmp_path, [f"a.{ending}"], size=40)
    assert files.place(0, torch.tensor([[9.0, 9.0]]))[0].tolist() == [18.5, 37.5]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_pixels_of_a_tiff_that_lies_on_its_side(
    tmp_path: Path, mode: str, compression: str | None
) -> None:
    upright = np.zeros((40, 30), dtype=np.uint8)
    upright[8:13, 14:19] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.ascontiguousarray(np.rot90(upright))).convert(mode)
    image.save(tmp_path / "a.tif", exif=exif, compression=compression)
    read = read_image(tmp_path / "a.tif")
    assert torch.equal(read[0] > 128, torch.from_numpy(upright > 128))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(5, 0, 5, 9), r"a\.png cannot be read as an image: the box \(5, 0, 5, 9\) is empty"),
        (Box(0, 0, 10**5, 10**5), "has 10000 megapixels, expected at most 50"),
    ],
)
def test_bad_boxes(tmp_path: Path, box: Box, message: str) -> None:
    path = write_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        read_image(path, box=box)
