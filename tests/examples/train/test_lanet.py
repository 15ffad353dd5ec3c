"""LA-Net: landmarks from a set or a file, parts that are left out, and inference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.landmarks import find_landmarks
from examples.train.options import Refused
from robustfer.checkpoint import load_resume
from robustfer.data import RAFDB, DemoFaces
from robustfer.landmarks import landmark_layout
from robustfer.models import CAMClassifier, LandmarkClassifier, LandmarkCoordinates, LANetModel
from tests.examples.train.runs import run

SIZE = 32
FACES = DemoFaces(40, size=SIZE)
SPACES = ["branch", "coordinates"]
TINY = {"channels": (16, 32, 64, 128), "output_stride": 8, "stem_width": 16}


@pytest.fixture(scope="module")
def landmarks_file(tmp_path_factory):
    """Landmarks of the training faces, in another order, none found in every eighth face."""
    path = tmp_path_factory.mktemp("landmarks") / "landmarks.npz"
    rows = np.arange(len(FACES))[::-1]
    np.savez(
        path,
        image=np.array([FACES.ids[row] for row in rows]),
        landmarks=np.stack([FACES.landmarks(row).numpy() for row in rows]),
        detected=rows % 8 != 0,
    )
    return path


def found(source, *, found_at=None, points=None):
    chosen = FACES.subset([9, 8, 30])
    return find_landmarks(source, chosen, size=(SIZE, SIZE), found_at=found_at, points=points)


def test_landmarks_come_from_the_set_or_a_file(landmarks_file):
    own, own_layout = found("dataset")
    assert own_layout == landmark_layout(68)
    torch.testing.assert_close(own[1], FACES.landmarks(8))
    from_file, _ = found(f"file:{landmarks_file}")
    assert from_file[1].isnan().all()
    assert torch.equal(from_file[[0, 2]], own[[0, 2]])
    fewer, fewer_layout = found(f"file:{landmarks_file}", points=19)
    assert fewer_layout == landmark_layout(19)
    assert torch.equal(fewer[0, 18], own[0, 8])
    assert fewer[1].isnan().all()
    enlarged, _ = found(f"file:{landmarks_file}", found_at=SIZE // 2)
    torch.testing.assert_close(enlarged[0], 2 * own[0] + 0.5)


def test_landmarks_of_image_files_move_with_the_images(tmp_path):
    """A file with the names of RAF-DB's aligned images, in their pixels."""
    for folder in ("EmoLabel", "Image/aligned"):
        Path(tmp_path, folder).mkdir(parents=True)
    names = [f"train_{number}" for number in range(3)]
    for name in names:
        Image.new("RGB", (10, 10)).save(tmp_path / f"Image/aligned/{name}_aligned.jpg")
    lines = "\n".join(f"{name}.jpg 1" for name in names)
    (tmp_path / "EmoLabel/list_patition_label.txt").write_text(lines)
    points = np.arange(30.0).reshape(3, 5, 2)
    path = tmp_path / "landmarks.npz"
    np.savez(path, image=[f"{name}_aligned.jpg" for name in names], landmarks=points)
    faces = RAFDB(tmp_path, size=20).subset([2, 0])
    landmarks, _ = find_landmarks(f"file:{path}", faces, size=(20, 20), found_at=None, points=None)
    assert torch.equal(landmarks, 2 * torch.tensor(points[[2, 0]]).float() + 0.5)
    given, _ = find_landmarks(f"file:{path}", faces, size=(20, 20), found_at=20, points=None)
    assert torch.equal(given, torch.tensor(points[[2, 0]]).float())
    np.savez(path, image=["other.jpg"], landmarks=points[:1])
    with pytest.raises(ValueError, match="no landmarks for 2 of 2 samples"):
        find_landmarks(f"file:{path}", faces, size=(20, 20), found_at=None, points=None)


def test_landmarks_that_cannot_be_had_are_refused(tmp_path):
    for source in ("landmarks.npz", "file:", "provider:mine"):
        with pytest.raises(Refused, match=rf"--landmarks.*got {source}"):
            found(source)
    with pytest.raises(FileNotFoundError, match=r"none\.npz does not exist"):
        found(f"file:{tmp_path / 'none.npz'}")
    with pytest.raises(ValueError, match="ibug-68 cannot be converted to wflw-98"):
        found("dataset", points=98)


@pytest.mark.parametrize("space", SPACES)
def test_faces_without_landmarks(landmarks_file, tmp_path, space):
    """By coordinates they have no neighbours and keep their labels; the branch looks at images."""
    lacking = torch.arange(len(FACES)) % 8 == 0
    run(
        "lanet", f"--second-space={space}", f"--landmarks=file:{landmarks_file}",
        "--batch-size=20", "--epochs=1", f"--output={tmp_path}/run",
    )  # fmt: skip
    state = load_resume(tmp_path / "run/resume.pt")["method"]
    for name, value in state.items():
        if name.startswith("network."):
            assert value.isfinite().all(), name
    one_hot = torch.nn.functional.one_hot(state["bank.label_given"].long(), 7)
    moved = (state["bank.distribution"] - one_hot).abs().amax(1) > 1e-3
    assert moved[~lacking].all()
    assert moved[lacking].all() == (space == "branch")
    assert moved[lacking].any() == (space == "branch")


@pytest.mark.parametrize("space", SPACES)
def test_inference_is_that_of_the_whole_network(tmp_path, space):
    outcome = run("lanet", f"--second-space={space}", "--epochs=1", f"--output={tmp_path}/run")
    classifier = CAMClassifier("resnet10t", num_classes=7, model_options=TINY)
    landmarks = torch.stack([FACES.landmarks(row) for row in range(len(FACES))])
    if space == "branch":
        whole = LANetModel(LandmarkClassifier(classifier, num_landmarks=68))
    else:
        coordinates = LandmarkCoordinates(landmarks, swap=landmark_layout(68).swap)
        whole = LANetModel(classifier, coordinates)
    state = load_resume(tmp_path / "run/resume.pt")["method"]
    own = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    whole.load_state_dict(own)
    images = torch.rand(4, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = whole.eval()(images, landmarks[:4]).logits
        torch.testing.assert_close(outcome.classifier.eval()(images).logits, expected)


@pytest.mark.parametrize("part", ["distribution", "landmark", "contrast"])
def test_a_weight_of_zero_leaves_its_part_out(tmp_path, part):
    outcome = run("lanet", f"--{part}-weight=0", "--epochs=1", f"--output={tmp_path}/run")
    state = load_resume(tmp_path / "run/resume.pt")["method"]
    moved = (state["bank.distribution"].amax(1) < 1).any()
    assert moved == (part != "distribution")
    name = "model.head.heatmaps.weight"
    trained = not torch.equal(state[f"network.{name}"], state[f"average.module.{name}"])
    assert trained == (part != "landmark")
    followed = int(state["average.step"]) > 0
    assert followed == (part != "contrast")
    assert len(outcome.history) == 1
