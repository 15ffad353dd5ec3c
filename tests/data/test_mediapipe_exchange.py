"""The file by which robustfer-mediapipe hands its landmarks over, without mediapipe itself.

The package stands apart, in an environment apart, and repeats what both sides must agree on. Its
writer runs here with a finder that needs no model.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustfer.data import ImageFolder
from robustfer.data.readers.images import IMAGE_SUFFIXES, MAX_MEGAPIXELS, read_image
from robustfer.landmarks import LandmarkFile, landmark_layout

SOURCE = Path(__file__).parents[2] / "plugins" / "robustfer-mediapipe" / "src"


@pytest.fixture(autouse=True)
def _package(monkeypatch):
    monkeypatch.syspath_prepend(str(SOURCE))


def find(pixels):
    """All points at (red, width), and no face in black."""
    red = int(pixels[0, 0, 0])
    return np.full((68, 2), (red, pixels.shape[1]), dtype=np.float32) if red else None


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("happiness/1.png", "happiness/2.png", "anger/ä b.png")):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
    return tmp_path / "faces"


def test_its_file_is_read(root, tmp_path):
    from robustfer_mediapipe.collect import collect

    output = tmp_path / "landmarks.npz"
    collect(root, output, lambda: find, {"margin": 0.25})
    provider = LandmarkFile(output)
    faces = ImageFolder(root)
    landmarks, visible = provider(faces.ids)  # its names are the ids of the data set
    assert faces.ids == ["anger/ä b.png", "happiness/1.png", "happiness/2.png"]
    assert provider.layout is landmark_layout(68)
    assert len(provider) == 3
    assert visible.all(dim=1).tolist() == [True, False, True]
    assert not bool(visible[1].any())
    assert landmarks[[0, 2], 30].tolist() == [[2, 9], [1, 9]]


def test_an_unfinished_file_is_not_taken_for_a_whole_one(root, tmp_path):
    from robustfer_mediapipe.collect import collect

    output = tmp_path / "landmarks.npz"

    def stop(pixels):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(root, output, lambda: stop, {})
    (partial,) = tmp_path.glob("landmarks.npz*")
    with pytest.raises(ValueError, match="path must end in"):
        LandmarkFile(partial)
    with pytest.raises(FileNotFoundError):
        LandmarkFile(output)


def test_both_have_the_same_68_points():
    from robustfer_mediapipe.ibug import PARTS, SWAP

    ours = landmark_layout(68)
    assert tuple(SWAP.tolist()) == ours.swap
    groups = {
        "jaw": ours.groups["jaw"],
        "brows": (*ours.groups["left_brow"], *ours.groups["right_brow"]),
        "nose": ours.groups["nose"],
        "eyes": (*ours.groups["left_eye"], *ours.groups["right_eye"]),
        "mouth": ours.groups["mouth"],
    }
    assert {name: tuple(range(68))[part] for name, part in PARTS.items()} == groups


def test_both_take_the_same_files_for_images():
    from robustfer_mediapipe import images

    assert images.SUFFIXES == IMAGE_SUFFIXES
    assert images.MAX_MEGAPIXELS == MAX_MEGAPIXELS


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_both_read_the_same_pixels(tmp_path, mode, orientation):
    """So that a point of the one is at home in the image of the other."""
    from robustfer_mediapipe import images

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(pixels).convert("RGB").convert(mode).save(path, exif=exif)
    ours = read_image(path)
    theirs = torch.from_numpy(images.read_image(path)).permute(2, 0, 1)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_both_refuse_the_same_files(tmp_path, content):
    from robustfer_mediapipe import images

    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, images.read_image):
        with pytest.raises(ValueError, match="it is damaged, or not PNG"):
            read(path)
