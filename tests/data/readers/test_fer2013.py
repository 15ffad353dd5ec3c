import numpy as np
import pytest
import torch
from PIL import Image

from robustfer.data import EXPRESSIONS, FER2013
from robustfer.data.readers.fer2013 import read_fer2013_labels
from tests.data.trees import write_fer2013

FACES = [
    ("Training", "a.png"),
    ("Training", ""),
    ("PublicTest", "b.png"),
]


def written(tmp_path, text):
    path = tmp_path / "fer2013.csv"
    path.write_text(text, encoding="utf-8")
    return path


def named(labels):
    return {image: EXPRESSIONS[label] for image, label in labels.items()}


def test_original_csv_by_row(tmp_path):
    text = "emotion,pixels,Usage\n0,1 2,Training\n1,1 2,Training\n3,1 2,PublicTest\n"
    labels = read_fer2013_labels(written(tmp_path, text), FACES)
    assert named(labels) == {"a.png": "anger", "b.png": "happiness"}


def test_every_code_by_name(tmp_path):
    rows = "".join(f"{code}.png,{code}\n" for code in range(7))
    labels = read_fer2013_labels(written(tmp_path, "image,emotion\n" + rows), [])
    assert list(named(labels).values()) == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
        "neutral",
    ]


def test_numbers_as_data_frames_write_them(tmp_path):
    text = "image,emotion\nsub\\a.png,3.0\n./b.png,+1\n"
    labels = read_fer2013_labels(written(tmp_path, text), [])
    assert named(labels) == {"sub/a.png": "happiness", "b.png": "disgust"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\na.png,1\n", r"line 1: .*emotion missing"),
        ("emotion,pixels\n1,2\n", "line 1: the header must name the column image, or Usage"),
        ("image,emotion\na.png,7\n", "line 2: emotion must be a whole number from 0 to 6, got '7'"),
        ("image,emotion\na.png,-1\n", "line 2: emotion must be a whole number"),
        ("image,emotion\na.png,1\na.png,1\n", r"line 3: a\.png is named a second time"),
        ("emotion,Usage\n0,Training\n", "has 1 rows, expected the 3 of fer2013new.csv"),
        ("image,emotion\na.png,nan\n", "line 2: emotion must be a whole number"),
        ("image,emotion,image\na.png,1,b.png\n", "line 1: the header names image twice"),
        ("image,emotion\na.png,1\n./a.png,1\n", r"line 3: a\.png is named a second time"),
        ("emotion,Usage\n", "has 0 rows, expected the 3 of fer2013new.csv"),
        (
            "emotion,Usage\n0,Training\n0,PublicTest\n0,PublicTest\n",
            "line 3: Usage is 'PublicTest', expected 'Training' as in the same row",
        ),
    ],
)
def test_mistakes_are_named_with_file(tmp_path, text, message):
    with pytest.raises(ValueError, match=r"fer2013\.csv.*" + message):
        read_fer2013_labels(written(tmp_path, text), FACES)


def test_an_image_named_again_may_be_dropped_unless_it_contradicts(tmp_path):
    same = written(tmp_path, "image,emotion\na.png,1\na.png,1\n")
    assert named(read_fer2013_labels(same, [], duplicates="drop")) == {"a.png": "disgust"}
    other = written(tmp_path, "image,emotion\na.png,1\na.png,2\n")
    with pytest.raises(ValueError, match=r"line 3: a\.png is named a second time"):
        read_fer2013_labels(other, [], duplicates="drop")


# Its own images


ICML = "emotion, Usage, pixels"
USAGES = ["Training", "PublicTest", "Training", "PrivateTest"]


@pytest.mark.parametrize("header", ["emotion,pixels,Usage", ICML])
def test_the_pixels_of_each_split(header, tmp_path):
    table = write_fer2013(tmp_path / "t.csv", USAGES, header=header)
    rows = {"train": [0, 2], "validation": [1], "test": [3]}
    for split, numbers in rows.items():
        faces = FER2013(table, split)
        assert faces.classes == EXPRESSIONS
        assert faces.ids == [f"fer{number:07d}.png" for number in numbers]
        for place, number in enumerate(numbers):
            image = faces[place]["image"]
            assert (image.shape, image.dtype) == ((3, 48, 48), torch.uint8)
            assert image.unique().tolist() == [10 * number]
    assert named(dict(zip("ab", FER2013(table).targets, strict=True))) == {
        "a": "anger",
        "b": "fear",
    }


def test_pixels_lie_row_by_row_and_are_not_shared(tmp_path):
    random = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    text = " ".join(map(str, random.ravel().tolist()))
    faces = FER2013(written(tmp_path, f"emotion,pixels,Usage\n0,{text},Training\n"))
    for channel in faces[0]["image"]:
        assert np.array_equal(channel.numpy(), random)
    faces[0]["image"].zero_()
    assert np.array_equal(faces[0]["image"][0].numpy(), random)
    small = FER2013(tmp_path / "fer2013.csv", size=24)[0]["image"]
    expected = Image.fromarray(random).resize((24, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(small[0].numpy(), np.array(expected))


def test_a_face_takes_a_byte_per_pixel(tmp_path):
    faces = FER2013(write_fer2013(tmp_path / "t.csv", ["Training"] * 9))
    assert faces._pixels.nbytes == 9 * 48 * 48


FLAT = " ".join(["7"] * 48**2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"0,{FLAT} 7,Training", "line 3: pixels must be 2304 numbers, 48 x 48, got 2305"),
        ("0,,Training", "line 3: pixels must be 2304 numbers, 48 x 48, got 0"),
        (f"0,256 {FLAT[2:]},Training", "line 3: pixels must be .* from 0 to 255, got '256'"),
        (f"0,-1 {FLAT[2:]},Training", "line 3: pixels must be .* from 0 to 255, got '-1'"),
        (f"0,7.5 {FLAT[2:]},Training", "line 3: pixels must be .* from 0 to 255, got '7.5'"),
        (f"7,{FLAT},Training", "line 3: emotion must be a whole number from 0 to 6, got '7'"),
        (f"x,{FLAT},Training", "line 3: emotion must be a whole number"),
        (f"0,{FLAT},Test", "line 3: Usage must be one of .* got 'Test'"),
        (f"0,{FLAT}", "line 3: .* each of 3 columns, got 2"),
    ],
)
def test_damaged_rows_are_named(row, message, tmp_path):
    table = written(tmp_path, f"emotion,pixels,Usage\n0,{FLAT},Training\n{row}\n")
    with pytest.raises(ValueError, match=rf"fer2013\.csv, {message}"):
        FER2013(table)


def test_bad_options_of_the_reader(tmp_path):
    table = write_fer2013(tmp_path / "t.csv", ["Training"])
    with pytest.raises(ValueError, match="no row of Usage 'PrivateTest'"):
        FER2013(table, "test")
    with pytest.raises(ValueError, match="split must be 'train', .* or 'test', got None"):
        FER2013(table, None)
    with pytest.raises(ValueError, match="size must be a whole number"):
        FER2013(table, size=0)
    with pytest.raises(ValueError, match="line 1: .* pixels missing"):
        FER2013(written(tmp_path, "emotion,Usage\n0,Training\n"))
