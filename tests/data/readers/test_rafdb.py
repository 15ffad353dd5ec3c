import os
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from robustfer.data import EXPRESSIONS, RAFDB
from robustfer.landmarks import DatasetLandmarks
from tests.data.trees import write_rafdb

LINES = [f"train_{number:05}.jpg {number}" for number in range(1, 8)] + ["test_0001.jpg 4"]


@pytest.fixture
def root(tmp_path):
    return write_rafdb(tmp_path / "basic", LINES)


def test_the_numbers_1_to_7(root):
    faces = RAFDB(root)
    assert faces.classes == EXPRESSIONS
    assert [faces.classes[target] for target in faces.targets] == list(EXPRESSIONS)
    assert faces.ids[0] == "train_00001.jpg"
    assert faces.excluded == {}
    test = RAFDB(root, "test")
    assert test.ids == ["test_0001.jpg"]
    assert test.classes[test.targets[0]] == "happiness"


def test_the_folder_above_is_a_root_too(root):
    assert RAFDB(root.parent).ids == RAFDB(root).ids


def test_aligned_images(root):
    faces = pickle.loads(pickle.dumps(RAFDB(root)))  # as a worker process gets it
    batch = next(iter(DataLoader(faces, batch_size=7)))
    assert batch["image"].shape == (7, 3, 100, 100)
    assert batch["image"][:, 0, 50, 50].tolist() == list(range(7))
    assert batch["id"] == faces.ids


def test_original_images_and_faces(root):
    assert RAFDB(root, images="original")[0]["image"].shape == (3, 40, 60)
    assert RAFDB(root, images="face")[0]["image"].shape == (3, 20, 30)
    assert RAFDB(root, images="face", size=10, in_memory=True)[0]["image"].shape == (3, 10, 10)


def test_landmarks_move_with_the_image(root):
    original = RAFDB(root, images="original").landmarks(0)
    assert original.dtype == torch.float32
    assert original[2].tolist() == [24.5, 14.5]
    assert RAFDB(root, images="face").landmarks(0)[2].tolist() == [14.5, 9.5]
    # 30 x 20 pixels become 60 x 60: the middle of the face stays the middle.
    assert RAFDB(root, images="face", size=60).landmarks(0)[2].tolist() == [29.5, 29.5]
    assert RAFDB(root, images="original", size=120).landmarks(0)[2].tolist() == [49.5, 44.5]
    auto = RAFDB(root, images="original", landmark_file="auto").landmarks(0)
    assert auto.shape == (37, 2)
    assert auto[4].tolist() == [21, 15]


def test_landmarks_by_id(root):
    faces = RAFDB(root, images="face").subset([3])
    points, visible = DatasetLandmarks(faces)(faces.ids)
    assert points.shape == (1, 5, 2)
    assert bool(visible.all())


def test_aligned_images_have_no_landmarks(root):
    with pytest.raises(
        ValueError, match="images='aligned' has no landmarks.*the alignment is unknown"
    ):
        RAFDB(root).landmarks(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "split must be train or test, .* hold out a part of train"),
        ({"images": "raw"}, "images must be 'aligned', 'original' or 'face', got 'raw'"),
        ({"landmark_file": "both"}, "landmark_file must be 'manual' or 'auto', got 'both'"),
        ({"duplicates": "keep"}, "duplicates must be error or drop"),
    ],
)
def test_bad_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        RAFDB(root, **options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train_1.jpg 8"], "line 1: a label must lie in 1 to 7, got 8"),
        (["train_1.jpg 1", "train_2.jpg 0"], "line 2: a label must lie in 1 to 7, got 0"),
        (["1.jpg 1"], r"line 1: a name must begin with train_ or test_, got 1\.jpg"),
        (["train_1.jpg 1", "train_1.jpg 1"], "line 2: .* a second time, .* duplicates='drop'"),
        (["train_1.jpg 1", "train_1.jpg 2"], "line 2: train_1.jpg is named a second time, .* 1$"),
        (["test_1.jpg 1"], "names no image whose name begins with train_"),
        (["train_/../../a.jpg 1"], "line 1: .* leads out of"),
        (["train_1.jpg nan"], "line 1: must be a name and a whole number"),
        (["train_1.jpg 3.0"], "line 1: must be a name and a whole number"),
        (["train_1.jpg " + "9" * 5000], "line 1: a label must be a whole number"),
    ],
)
def test_bad_lists(tmp_path, lines, message):
    (tmp_path / "EmoLabel").mkdir()
    (tmp_path / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"list_patition_label\.txt.*" + message):
        RAFDB(tmp_path)


def test_the_same_line_again_may_be_dropped(tmp_path):
    write_rafdb(tmp_path, ["train_1.jpg 1", "train_2.jpg 2"])
    with (tmp_path / "EmoLabel" / "list_patition_label.txt").open("a") as file:
        file.write("train_1.jpg 1\n")
    faces = RAFDB(tmp_path, duplicates="drop")
    assert faces.ids == ["train_1.jpg", "train_2.jpg"]
    assert faces.excluded == {"named again with the same label": 1}


def test_pipes_are_named_and_not_opened(root):
    box = root / "Annotation" / "boundingbox" / "train_00001_boundingbox.txt"
    box.unlink()
    os.mkfifo(box)
    with pytest.raises(FileNotFoundError, match=r"train_00001_boundingbox\.txt does not exist"):
        RAFDB(root, images="face")
    image = root / "Image" / "aligned" / "train_00001_aligned.jpg"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(ValueError, match=r"line 1: .*00001_aligned\.jpg must be a regular file"):
        RAFDB(root)


def test_missing_files(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        RAFDB(tmp_path / "nowhere")
    (root / "Image" / "aligned" / "train_00002_aligned.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"label\.txt, line 2: .*00002_aligned\.jpg does"):
        RAFDB(root)
    (root / "Annotation" / "boundingbox" / "train_00003_boundingbox.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_00003_boundingbox\.txt does not exist"):
        RAFDB(root, images="face")
    (root / "EmoLabel" / "list_patition_label.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"list_patition_label\.txt .*numbers=rafdb"):
        RAFDB(root)


@pytest.mark.parametrize(
    "text", ["", "1 2 3", "40 5 10 25", "10 nan 40 25", "0 0 1e30 1e30", "0 0 1 1e400", "a b c d"]
)
def test_bad_boxes(root, text):
    path = root / "Annotation" / "boundingbox" / "train_00003_boundingbox.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"00003_boundingbox\.txt.* must "):
        RAFDB(root, images="face")


@pytest.mark.parametrize("text", ["1 2\n3 4\n", "1 2\n3 4\n5\n6 7\n8 9\n", "1 2\nx y\n"])
def test_bad_landmarks(root, text):
    (root / "Annotation" / "manual" / "train_00001_manu_attri.txt").write_text(text)
    with pytest.raises(ValueError, match=r"train_00001_manu_attri\.txt.* must "):
        RAFDB(root, images="original").landmarks(0)
