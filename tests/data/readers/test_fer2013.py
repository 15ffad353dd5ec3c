import pytest

from robustfer.data import EXPRESSIONS
from robustfer.data.readers.fer2013 import NamedFace, read_fer2013_labels

FACES = [
    NamedFace("Training", "a.png"),
    NamedFace("Training", ""),
    NamedFace("PublicTest", "b.png"),
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
        ("image,emotion\na.png,7\n", "line 2: emotion must lie in 0 to 6, got 7"),
        ("image,emotion\na.png,-1\n", "line 2: emotion must be a whole number"),
        ("image,emotion\na.png,1\na.png,1\n", r"line 3: a\.png is named a second time"),
        ("emotion,Usage\n0,Training\n", "has 1 rows, but fer2013new.csv has 3"),
        ("image,emotion\na.png,nan\n", "line 2: emotion must be a whole number"),
        ("image,emotion,image\na.png,1,b.png\n", "line 1: the header names image twice"),
        ("image,emotion\na.png,1\n./a.png,1\n", r"line 3: a\.png is named a second time"),
        ("emotion,Usage\n", "has 0 rows, but fer2013new.csv has 3"),
        (
            "emotion,Usage\n0,Training\n0,PublicTest\n0,PublicTest\n",
            "line 3: Usage is 'PublicTest', but 'Training' in the same row",
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
