"""The points of synthetic faces against where they were drawn, and of equal pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustfer_mediapipe.cli import main
from robustfer_mediapipe.ibug import PARTS, SWAP
from robustfer_mediapipe.images import read_image

pytest.importorskip("mediapipe", reason="mediapipe is not installed")
from robustfer_mediapipe.mesh import FaceMesh

#: 14 faces of robustfer's DemoFaces, two of each expression, and their points.
DRAWN = Path(__file__).parent / "drawn"
with np.load(DRAWN / "points.npz") as _arrays:
    NAMES, DRAWN_POINTS = _arrays["image"].tolist(), _arrays["landmarks"]
IMAGES = [read_image(DRAWN / name) for name in NAMES]
EYES = np.linalg.norm(DRAWN_POINTS[:, 36] - DRAWN_POINTS[:, 45], axis=-1)


@pytest.fixture(scope="module")
def mesh():
    return FaceMesh()


@pytest.fixture(scope="module")
def found(mesh):
    return np.array([mesh(image) for image in IMAGES])


def shares(points, others):
    """Distances as shares of the one between the outer corners of the eyes."""
    return np.linalg.norm(points - others, axis=-1) / EYES[:, None]


def test_the_points_are_where_they_were_drawn(found):
    assert found.shape == (14, 68, 2)
    assert found.dtype == np.float32
    distances = shares(found, DRAWN_POINTS)
    means = {name: distances[:, part].mean() for name, part in PARTS.items()}
    limits = {"jaw": 0.09, "brows": 0.13, "nose": 0.07, "eyes": 0.05, "mouth": 0.04}
    assert all(means[name] < limit for name, limit in limits.items()), means
    # None is another's: each is nearer to its own than half way to the far side of its part.
    assert distances.mean(axis=0).max() < 0.17


def test_mirrored_faces_have_mirrored_points(mesh, found):
    width = IMAGES[0].shape[1]
    mirrored = np.array([mesh(np.ascontiguousarray(image[:, ::-1])) for image in IMAGES])
    back = (width - 1, 0) + mirrored[:, SWAP] * (-1, 1)
    assert shares(found, back).mean() < 0.03
    # Half a pixel in the wrong place would be a whole one here.
    assert abs((found - back)[..., 0].mean()) < 0.7
    assert abs((found - back)[..., 1].mean()) < 0.3


def test_points_stay_as_a_picture_is_enlarged(mesh):
    """The middle of the first pixel is 0 at any size: with edges counted, they would move."""
    small = [Image.fromarray(image).resize((48, 48), Image.Resampling.BOX) for image in IMAGES]
    large = [image.resize((192, 192), Image.Resampling.BICUBIC) for image in small]
    one = np.array([mesh(np.array(image)) for image in small])
    other = (np.array([mesh(np.array(image)) for image in large]) + 0.5) / 4 - 0.5
    assert np.abs((one - other).mean(axis=(0, 1))).max() < 0.12  # 0.375 otherwise


def test_points_move_with_the_face(mesh, found):
    """In a picture that is not square, whatever the margin."""
    around = [np.pad(image, ((5, 40), (60, 0), (0, 0)), mode="edge") for image in IMAGES]
    moved = np.array([mesh(image) for image in around]) - (60, 5)
    assert shares(found, moved).mean() < 0.04
    assert np.abs((found - moved).mean(axis=(0, 1))).max() < 0.5


def test_what_came_before_does_not_matter(found):
    mesh = FaceMesh()
    backwards = [mesh(image) for image in reversed(IMAGES)]
    np.testing.assert_array_equal(np.array(backwards)[::-1], found)


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 1, 3), (3, 200, 3)])
def test_no_face(mesh, shape):
    assert mesh(np.full(shape, 128, dtype=np.uint8)) is None


def test_the_whole_mesh(mesh):
    vertices = mesh.vertices(IMAGES[0])
    assert vertices.shape == (478, 2)


def test_the_command(tmp_path, found, capsys):
    output = tmp_path / "points.npz"
    assert main([str(DRAWN), str(output)]) == 0
    assert "14 images, 14 of them new; a face in 14 (100.0%)" in capsys.readouterr().out
    with np.load(output, allow_pickle=False) as arrays:
        assert arrays["image"].tolist() == NAMES
        np.testing.assert_array_equal(arrays["landmarks"], found)
