import numpy as np
import pytest
from PIL import Image

from robustfer_mediapipe.images import find_images, read_image


def picture(path, mode="RGB", size=(5, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, **options).save(path)
    return path


def test_images_are_found_in_all_folders_in_order(tmp_path):
    for name in ("b/2.png", "b/10.JPG", "a.jpeg", ".hidden.png", ".trash/1.png", "b/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "c").symlink_to("b")
    (tmp_path / "b" / "back").symlink_to(tmp_path)
    assert find_images(tmp_path) == ["a.jpeg", "b/10.JPG", "b/2.png", "c/10.JPG", "c/2.png"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_any_mode_becomes_three_channels_or_is_refused(tmp_path, mode):
    path = picture(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode)
    if mode == "I;16":
        with pytest.raises(ValueError, match="more than 8 bits per channel"):
            read_image(path)
    else:
        pixels = read_image(path)
        assert (pixels.shape, pixels.dtype) == ((4, 5, 3), np.uint8)


def test_transparent_palette(tmp_path):
    """Pillow warns of it, and warnings are errors here."""
    path = tmp_path / "a.png"
    image = Image.new("P", (5, 4))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(path, transparency=b"\x00\xff")
    assert read_image(path)[0, 0].tolist() == [10, 20, 30]


def test_images_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (5, 4, 3)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_pixels_of_an_image_that_lies_on_its_side(tmp_path, ending):
    upright = np.zeros((40, 30), dtype=np.uint8)
    upright[8:13, 14:19] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    image.save(tmp_path / f"a.{ending}", exif=exif)
    read = read_image(tmp_path / f"a.{ending}")[..., 0]
    assert np.argwhere(read > 128).mean(0).tolist() == pytest.approx([10, 16], abs=0.1)


def test_broken_files_are_value_errors(tmp_path):
    whole = picture(tmp_path / "whole.png", size=(50, 40)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "empty.png", "text.png", "missing.png"):
        with pytest.raises(ValueError, match=r"\w"):
            read_image(tmp_path / name)


def test_huge_images_are_refused(tmp_path):
    path = picture(tmp_path / "a.png", "1", (10_001, 5_000))
    with pytest.raises(ValueError, match="more than 50 megapixels"):
        read_image(path)
