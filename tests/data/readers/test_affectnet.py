import os

import numpy as np
import pytest
from PIL import Image

from robustfer.data import EXPRESSIONS, AffectNet
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT
from robustfer.landmarks import DatasetLandmarks
from tests.data.trees import (
    AFFECTNET_HEADER,
    affectnet_row,
    write_affectnet_arrays,
    write_affectnet_table,
    write_image,
)

ROWS = [affectnet_row(f"{code % 3}/{code}.jpg", code) for code in range(11)]
NAMES = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
LEFT_OUT = {"labelled none": 1, "labelled uncertain": 1, "labelled no face": 1}


def labels(faces):
    return [faces.classes[target] for target in faces.targets]


@pytest.mark.parametrize(
    "table",
    [
        "training.csv",
        "Manually_Annotated_file_lists/training.csv",
        "Manually_Annotated/training.csv",
    ],
)
def test_tables(tmp_path, table):
    write_affectnet_table(tmp_path, ROWS, table=table)
    faces = AffectNet(tmp_path)
    assert faces.classes == EXPRESSIONS
    assert labels(faces) == NAMES[:7]
    assert faces.ids[:2] == ["0/0.jpg", "1/1.jpg"]
    assert faces.excluded == LEFT_OUT | {"labelled contempt": 1}
    eight = AffectNet(tmp_path, num_classes=8)
    assert eight.classes == EXPRESSIONS_WITH_CONTEMPT
    assert labels(eight) == NAMES
    assert eight.excluded == LEFT_OUT


def test_images_beside_the_table(tmp_path):
    root = write_affectnet_table(tmp_path / "Manually_Annotated", ROWS, table="validation.csv")
    assert labels(AffectNet(root.parent, "validation")) == NAMES[:7]


def test_faces_are_cut_out(tmp_path):
    write_affectnet_table(tmp_path, ROWS)
    faces = AffectNet(tmp_path)
    assert faces[2]["image"].shape == (3, 20, 30)
    assert faces[2]["image"].unique().tolist() == [2]
    assert AffectNet(tmp_path, crop=False)[0]["image"].shape == (3, 40, 60)
    # (20, 15) of the photograph, the box beginning at (10, 5) and growing from 30 x 20 to 60 x 60
    assert faces.landmarks(3)[0].tolist() == [10, 10]
    moved = AffectNet(tmp_path, size=60).landmarks(3)
    assert moved.shape == (68, 2)
    assert moved[0].tolist() == [20.5, 31]


def test_a_box_beyond_the_photograph_is_black_there(tmp_path):
    write_affectnet_table(tmp_path, [affectnet_row("a.png", 1, box="-10,0,20,40")])
    path = tmp_path / "Manually_Annotated_Images" / "a.png"
    Image.new("L", (60, 40), color=200).save(path)
    image = AffectNet(tmp_path)[0]["image"]
    assert image.shape == (3, 40, 20)
    assert image[0, 0].tolist() == [0] * 10 + [200] * 10


def test_arrays(tmp_path):
    write_affectnet_arrays(tmp_path, range(11))
    write_affectnet_arrays(tmp_path, [3], part="val_set")
    faces = AffectNet(tmp_path, size=112)
    assert faces.ids == [f"{number}.jpg" for number in range(7)]
    assert labels(faces) == NAMES[:7]
    assert faces.excluded == LEFT_OUT | {"labelled contempt": 1}
    assert faces[4]["image"].unique().tolist() == [4]
    assert faces.landmarks(4)[0].tolist() == [1.75, 2.25]  # (4, 5) in 224 pixels
    assert labels(AffectNet(tmp_path, "validation")) == ["surprise"]
    points, visible = DatasetLandmarks(faces)(["4.jpg"])
    assert points.shape == (1, 68, 2)
    assert bool(visible.all())


def test_numbers_may_be_stored_as_numbers(tmp_path):
    write_affectnet_arrays(tmp_path, [1])
    np.save(tmp_path / "train_set" / "annotations" / "0_exp.npy", np.array([6]))
    assert labels(AffectNet(tmp_path)) == ["anger"]


@pytest.mark.parametrize("value", [np.array(6.0), np.array("6.0"), np.array([6], dtype=np.uint8)])
def test_numbers_as_data_frames_write_them(tmp_path, value):
    write_affectnet_arrays(tmp_path / "arrays", [1])
    np.save(tmp_path / "arrays" / "train_set" / "annotations" / "0_exp.npy", value)
    assert labels(AffectNet(tmp_path / "arrays")) == ["anger"]
    write_affectnet_table(tmp_path / "table", [affectnet_row("a.jpg", "6.0")])
    assert labels(AffectNet(tmp_path / "table")) == ["anger"]


def test_what_lies_beside_the_arrays(tmp_path):
    write_affectnet_arrays(tmp_path, [1, 2, 3])
    images = tmp_path / "train_set" / "images"
    (images / "0.jpg").rename(images / "0.PNG")
    (images / "1.jpg").unlink()
    (images / "._2.jpg").write_bytes(b"companion")
    faces = AffectNet(tmp_path)
    assert faces.ids == ["0.PNG", "2.jpg"]
    assert faces.excluded == {"hidden": 1, "without an image": 1}
    write_image(images / "more" / "0.jpg")
    with pytest.raises(ValueError, match=r"more/0\.jpg is in a subfolder"):
        AffectNet(tmp_path)
    (images / "more" / "0.jpg").unlink()
    (tmp_path / "train_set" / "annotations" / "2_exp.npy").unlink()
    os.mkfifo(tmp_path / "train_set" / "annotations" / "2_exp.npy")
    with pytest.raises(FileNotFoundError, match=r"2_exp\.npy does not exist, or is not a file"):
        AffectNet(tmp_path)


def test_landmarks_share_no_memory_with_the_data_set(tmp_path):
    write_affectnet_table(tmp_path, [ROW])
    faces = AffectNet(tmp_path, crop=False)
    before = faces.landmarks(0)
    faces.landmarks(0).zero_()
    assert faces.landmarks(0).tolist() == before.tolist()


def test_nothing_is_unpickled(tmp_path):
    write_affectnet_arrays(tmp_path, [1, 2])
    path = tmp_path / "train_set" / "annotations" / "1_exp.npy"
    np.save(path, np.array([{"code": "harmful"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"1_exp\.npy is not a plain numpy array"):
        AffectNet(tmp_path)


@pytest.mark.parametrize("value", [np.array("x"), np.array(11), np.array([1, 2]), np.array(-1)])
def test_bad_arrays(tmp_path, value):
    write_affectnet_arrays(tmp_path, [1])
    np.save(tmp_path / "train_set" / "annotations" / "0_exp.npy", value)
    with pytest.raises(ValueError, match=r"0_exp\.npy must have an expression from 0 to 10"):
        AffectNet(tmp_path)
    np.save(tmp_path / "train_set" / "annotations" / "0_exp.npy", np.array("1"))
    np.save(tmp_path / "train_set" / "annotations" / "0_lnd.npy", np.arange(10.0))
    with pytest.raises(ValueError, match=r"0_lnd\.npy: landmarks must be 68 points.* got 10 val"):
        AffectNet(tmp_path).landmarks(0)


ROW = affectnet_row("a.jpg", 1)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (ROW, [ROW], "line 1: the header must name the columns subDirectory_filePath"),
        (
            AFFECTNET_HEADER,
            [affectnet_row("a.jpg", 11)],
            "line 2: expression must be a whole .* 10",
        ),
        (AFFECTNET_HEADER, [affectnet_row("a.jpg", "x")], "line 2: expression must be a whole"),
        (AFFECTNET_HEADER, [affectnet_row("../a.jpg", 1)], "line 2: .* leads out of"),
        (AFFECTNET_HEADER, [ROW, ROW], "line 3: .* a second time, .* duplicates='drop'"),
        (AFFECTNET_HEADER, [ROW.replace("10,5", "10,x")], "line 2: face_y must be a number"),
        (AFFECTNET_HEADER, [ROW.replace("10,5", "1e30,5")], "line 2: face_x must be a number of"),
        (AFFECTNET_HEADER, [affectnet_row("a.jpg", "nan")], "line 2: expression must be a whole"),
        (
            AFFECTNET_HEADER,
            [affectnet_row("a.jpg", "9" * 5000)],
            r"line 2: expression .* '9{59}\.\.\. \(5002 characters\)",
        ),
        (AFFECTNET_HEADER + ",x,x", [ROW + ",1,2"], "line 1: the header names x twice"),
        (AFFECTNET_HEADER, [ROW.replace("30,20", "0,20")], "line 2: .*at least 1, got 0 and 20"),
        (AFFECTNET_HEADER, [affectnet_row("a.jpg", 9)], "no image is left: {'labelled uncertain'"),
    ],
)
def test_bad_tables(tmp_path, header, rows, message):
    write_affectnet_table(tmp_path, rows, header=header)
    with pytest.raises(ValueError, match=r"training\.csv.*" + message):
        AffectNet(tmp_path)


def test_rows_without_a_face_need_no_box(tmp_path):
    rows = [ROW, affectnet_row("b.jpg", 10, box="NULL,NULL,0,0")]
    assert len(AffectNet(write_affectnet_table(tmp_path, rows))) == 1


def test_repeated_rows_may_be_dropped(tmp_path):
    write_affectnet_table(tmp_path, [ROW, ROW])
    faces = AffectNet(tmp_path, duplicates="drop")
    assert len(faces) == 1
    assert faces.excluded == {"named again in the same words": 1}


def test_bad_landmarks(tmp_path):
    write_affectnet_table(tmp_path, [ROW, affectnet_row("b.jpg", 1).replace("20.0;", "")])
    with pytest.raises(ValueError, match=r"training\.csv, line 3: landmarks must be 68 points"):
        AffectNet(tmp_path).landmarks(0)
    write_affectnet_table(tmp_path, [ROW.replace("20.0;", "1e39;")])
    with pytest.raises(ValueError, match=r"training\.csv, line 2: .* 135 of them numbers"):
        AffectNet(tmp_path).landmarks(0)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        AffectNet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"neither training\.csv nor train_set"):
        AffectNet(tmp_path)
    write_affectnet_table(tmp_path, ROWS)
    (tmp_path / "Manually_Annotated_Images" / "1" / "4.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"training\.csv, line 6: .*4\.jpg does not exist"):
        AffectNet(tmp_path)
    (tmp_path / "Manually_Annotated_Images").rename(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="Manually_Annotated_Images does not exist"):
        AffectNet(tmp_path)


def test_missing_arrays(tmp_path):
    write_affectnet_arrays(tmp_path, [1, 2])
    annotations = tmp_path / "train_set" / "annotations"
    (annotations / "0_lnd.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"0_lnd\.npy does not exist"):
        AffectNet(tmp_path).landmarks(0)
    (annotations / "1_exp.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"1_exp\.npy does not exist"):
        AffectNet(tmp_path)
    (tmp_path / "train_set" / "images").rename(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="images does not exist"):
        AffectNet(tmp_path)
    (tmp_path / "train_set" / "images").mkdir()
    with pytest.raises(ValueError, match="images has no image, expected files like"):
        AffectNet(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split must be train or validation, got 'test'; the labels of"),
        ({"num_classes": 7.0}, "num_classes must be 7, or 8 with contempt, got 7.0"),
        ({"num_classes": 9}, "num_classes must be 7, or 8 with contempt, got 9"),
        ({"duplicates": "keep"}, "duplicates must be error or drop"),
    ],
)
def test_bad_options(tmp_path, options, message):
    write_affectnet_table(tmp_path, ROWS)
    with pytest.raises(ValueError, match=message):
        AffectNet(tmp_path, **options)
