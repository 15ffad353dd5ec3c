"""Labels and images belong on the CPU in float32, whatever torch's defaults are.

``meta`` stands for a GPU: what follows it by accident has no values and fails.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from robustfer.data import (
    EXPRESSIONS,
    FER2013,
    RAFDB,
    AffectNet,
    DemoFaces,
    FERPlus,
    ImageFolder,
    JoinedFaces,
    LabelTable,
    ProgressiveBalancedSampler,
    WrappedFaces,
)
from robustfer.data.classes import renumber
from robustfer.landmarks import DatasetLandmarks, LandmarkFile
from robustfer.metrics import confusion_matrix
from robustfer.noise import (
    NoiseProfile,
    noise_report,
    with_class_noise,
    with_instance_noise,
    with_noise_like,
    with_noise_list,
    with_symmetric_noise,
    write_noise_list,
)
from robustfer.noise.lists import read_noise_list
from robustfer.noise.matrices import (
    LANET_CONFUSIONS,
    crowd_counts,
    noise_matrix,
    transition_matrix,
    without_diagonal,
)
from robustfer.noise.models import class_noise, symmetric_noise
from robustfer.noise.verification import verify_noise_list
from tests.data.trees import (
    HEADER,
    affectnet_row,
    vote_row,
    write_affectnet_arrays,
    write_affectnet_table,
    write_fer2013,
    write_ferplus,
    write_image,
    write_rafdb,
)

TARGETS = torch.tensor([0, 1, 2, 3, 4, 5, 6])
NAMES = [f"train_{row}.jpg" for row in range(7)]
MATRIX = noise_matrix(LANET_CONFUSIONS, EXPRESSIONS)
COUNTS = torch.tensor([[8, 2], [1, 9]])
POINTS = np.arange(10.0).reshape(5, 2)


def make_folder(path):
    write_image(path / "happy" / "a.png")
    write_image(path / "sad" / "a.png")
    return ImageFolder(path, in_memory=True, size=16)


def make_table(path):
    text = "path,votes,landmarks\na.png,0;0;0;8;0;0;2,1;2\nb.png,9;0;0;0;0;0;0,\n"
    (path / "t.csv").write_text(text)
    for name in "ab":
        write_image(path / f"{name}.png")
    return LabelTable(path / "t.csv", labels="majority", size=16)


def make_probabilities(path):
    rows = [vote_row("a.png", fear=6, sadness=4), vote_row("b.png", fear=9)]
    return FERPlus(write_ferplus(path, rows, header=HEADER), labels="probability")


READERS = {
    "demo": lambda path: DemoFaces(14),
    "folder": make_folder,
    "table": make_table,
    "rafdb": lambda path: RAFDB(write_rafdb(path / "r", ["train_1.jpg 5"]), images="face", size=16),
    "ferplus": lambda path: FERPlus(write_ferplus(path, [vote_row("a.png", fear=9)])),
    "ferplus, probabilities": make_probabilities,
    "affectnet, table": lambda path: AffectNet(
        write_affectnet_table(path, [affectnet_row("a.jpg", 1)]), size=16
    ),
    "affectnet, arrays": lambda path: AffectNet(write_affectnet_arrays(path, [1, 3])),
    "fer2013": lambda path: FER2013(write_fer2013(path / "t.csv", ["Training"] * 2), size=16),
    "wrapped": lambda path: WrappedFaces(
        [(np.zeros((8, 8)), "sad"), (Image.new("L", (8, 8)), "joy")]
    ),
    "joined": lambda path: JoinedFaces([DemoFaces(7), DemoFaces(7, seed=1).split(0.5, seed=0)[0]]),
}


@pytest.fixture
def other_defaults():
    """A default device and a default dtype that nothing must follow."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def on_cpu(*tensors):
    for tensor in tensors:
        assert tensor.device.type == "cpu"
        assert tensor.dtype in (torch.int64, torch.uint8, torch.float32, torch.bool), tensor.dtype


@pytest.mark.parametrize("kind", READERS)
def test_readers(tmp_path, kind, other_defaults):
    faces = READERS[kind](tmp_path)
    on_cpu(faces.targets, faces[0]["image"], faces[0]["target"])
    if faces.votes is not None:
        on_cpu(faces.votes)
    others = [faces.subset([0]), faces.subset(np.array([0])), faces.with_targets(faces.targets)]
    if len(faces) > 1:
        others += faces.split(0.5, seed=0)
    if len(faces.classes) == 7:
        others.append(faces.with_classes("fer2013"))
    for other in others:
        on_cpu(other.targets, other[0]["target"])
        assert other.summary()
    if hasattr(faces, "landmarks"):
        try:
            points = faces.landmarks(0)
        except ValueError:  # aligned RAF-DB has none
            return
        on_cpu(points)
        layout = {68: None}.get(len(points), "skip")
        if layout is None:
            on_cpu(*DatasetLandmarks(faces)(faces.ids[:1]))


def test_landmark_files(tmp_path, other_defaults):
    path = tmp_path / "points.npz"
    np.savez(path, image=np.array(["a"]), landmarks=POINTS[None])
    on_cpu(*LandmarkFile(path)(["a"]))


def test_classes(other_defaults):
    on_cpu(renumber(TARGETS, source="fer2013", target=EXPRESSIONS))


def test_matrices(other_defaults):
    for matrix in (
        noise_matrix(LANET_CONFUSIONS, EXPRESSIONS),
        confusion_matrix(TARGETS, TARGETS, num_classes=7),
        crowd_counts(COUNTS),
        transition_matrix(COUNTS),
        without_diagonal(COUNTS / 10),
    ):
        assert matrix.device.type == "cpu"


@pytest.mark.parametrize("variant", ["exact", "bernoulli", "official"])
def test_noise(variant, other_defaults):
    faces, options = DemoFaces(14), {"rate": 0.5, "seed": 0, "variant": variant}
    on_cpu(symmetric_noise(TARGETS, NAMES, num_classes=7, **options))
    on_cpu(class_noise(TARGETS, NAMES, confusions=MATRIX, **options))
    on_cpu(with_symmetric_noise(faces, **options).targets)
    on_cpu(with_class_noise(faces, "lanet", **options).true_targets)
    assert noise_report(with_symmetric_noise(faces, **options)).samples == 14
    looks = torch.full((14, 7), 1 / 7, device="cpu")
    profile = NoiseProfile.of(with_symmetric_noise(faces, **options), probabilities=looks)
    on_cpu(profile.counts)
    on_cpu(with_noise_like(faces, profile, seed=0, probabilities=looks).targets)
    on_cpu(with_instance_noise(faces, looks, rate=0.5, seed=0).targets)


def test_noise_lists(tmp_path, other_defaults):
    faces = DemoFaces(14)
    write_noise_list(tmp_path / "list.txt", faces.ids, faces.targets)
    noisy = read_noise_list(tmp_path / "list.txt", clean=faces)
    on_cpu(noisy.targets, with_noise_list(faces, tmp_path / "list.txt").targets)
    assert not verify_noise_list(noisy, faces).problems


def test_sampler(other_defaults):
    sampler = ProgressiveBalancedSampler(TARGETS, num_classes=7, max_epoch=3)
    assert sorted(sampler) == list(range(7))
