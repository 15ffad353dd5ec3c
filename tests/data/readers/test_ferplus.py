import csv
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from robustfer.data import EXPRESSIONS, FERPlus
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT
from tests.data.trees import HEADER, vote_row, write_ferplus, write_image

# The grey value of an image is the number of its row.
ROWS = [
    vote_row("fer0.png", happiness=9, neutral=1),
    vote_row("", NF=10),
    vote_row("fer1.png", anger=5, sadness=5),
    vote_row("fer2.png", neutral=6, fear=4),
    vote_row("fer3.png", NF=8, anger=2),
    vote_row("fer4.png", unknown=6, anger=4),
    vote_row("fer5.png", contempt=7, anger=3),
    vote_row("fer6.png", surprise=4, sadness=3, anger=3),
    vote_row("fer7.png", usage="PublicTest", disgust=10),
    vote_row("fer8.png", usage="PrivateTest", sadness=10),
]


@pytest.fixture
def root(tmp_path):
    return write_ferplus(tmp_path / "ferplus", ROWS)


def names(faces):
    return [faces.classes[target] for target in faces.targets]


def test_majority(root):
    faces = FERPlus(root)
    assert faces.classes == EXPRESSIONS
    assert faces.ids == ["fer0.png", "fer2.png"]
    assert names(faces) == ["happiness", "neutral"]
    assert faces.true_targets is None
    assert faces.excluded == {
        "removed by FERPlus": 1,
        "without a majority": 2,
        "with a majority for NF": 1,
        "with a majority for unknown": 1,
        "with a majority for contempt": 1,
    }
    assert faces.summary().startswith("2 images: surprise 0, ")
    assert "left out: 1 removed by FERPlus, 2 without a majority, 1 with" in faces.summary()


def test_samples(root):
    faces = FERPlus(root)
    sample = faces[1]
    assert sample["image"].shape == (3, 48, 48)
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].unique().tolist() == [3]
    assert sample["index"] == 1
    batch = next(iter(DataLoader(faces, batch_size=2)))
    assert batch["target"].tolist() == faces.targets.tolist()
    assert batch["index"].tolist() == [0, 1]


def test_eight_classes_keep_contempt(root):
    faces = FERPlus(root, num_classes=8)
    assert faces.classes == EXPRESSIONS_WITH_CONTEMPT
    assert names(faces) == ["happiness", "neutral", "contempt"]
    assert "with a majority for contempt" not in faces.excluded


SHARES = {
    "fer0.png": {"happiness": 1.0},
    "fer1.png": {"anger": 0.5, "sadness": 0.5},
    "fer2.png": {"neutral": 0.6, "fear": 0.4},
    "fer6.png": {"surprise": 0.4, "sadness": 0.3, "anger": 0.3},
}
ALIKE = SHARES | {
    "fer2.png": {"neutral": 0.5, "fear": 0.5},
    "fer6.png": {"surprise": 1 / 3, "sadness": 1 / 3, "anger": 1 / 3},
}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("probability", SHARES), ("crossentropy", SHARES), ("multi_target", ALIKE)],
)
def test_labels_that_are_distributions(root, labels, expected):
    faces = FERPlus(root, labels=labels)
    assert faces.ids == list(expected)
    for name, row in zip(faces.ids, faces.targets, strict=True):
        wanted = [expected[name].get(expression, 0.0) for expression in EXPRESSIONS]
        assert row.tolist() == pytest.approx(wanted)
    assert faces.excluded == {
        "removed by FERPlus": 1,
        "with most votes for NF": 1,
        "with most votes for unknown": 1,
        "with most votes for contempt": 1,
    }


def test_votes_are_kept_as_given(root):
    faces = FERPlus(root, num_classes=8)
    votes = dict(zip(faces.classes, faces.votes[0].tolist(), strict=True))
    assert votes == dict.fromkeys(faces.classes, 0) | {"happiness": 9, "neutral": 1}
    assert faces.votes.shape == (3, 8)
    assert FERPlus(root).subset([1]).votes[0].tolist() == [0, 4, 0, 0, 0, 0, 6]


@pytest.mark.parametrize("labels", ["majority", "probability", "fer2013"])
def test_votes_are_handed_out_whatever_the_label(root, labels, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text("image,emotion\n" + "".join(f"{name},0\n" for name in FERPlus(root).ids))
    faces = FERPlus(root, labels=labels, fer2013_labels=own if labels == "fer2013" else None)
    [batch] = DataLoader(faces, batch_size=len(faces))
    assert torch.equal(batch["votes"], faces.votes)
    assert batch["votes"].dtype == torch.int64


@pytest.mark.parametrize(
    ("split", "name", "label"),
    [("validation", "fer7.png", "disgust"), ("test", "fer8.png", "sadness")],
)
def test_other_splits(root, split, name, label):
    faces = FERPlus(root, split)
    assert faces.ids == [name]
    assert names(faces) == [label]
    assert faces.excluded == {}
    assert "left out: nothing" in faces.summary()


def test_fer2013_labels_for_the_images_of_majority(root, tmp_path):
    by_name = tmp_path / "emotion.csv"
    by_name.write_text("image,emotion\nfer2.png,2\nfer0.png,3\nfer5.png,0\n")
    faces = FERPlus(root, labels="fer2013", fer2013_labels=by_name)
    majority = FERPlus(root)
    assert faces.ids == majority.ids
    assert faces.excluded == majority.excluded
    assert torch.equal(faces.true_targets, majority.targets)
    assert names(faces) == ["happiness", "fear"]
    assert "1 labels (50.0%) differ from the true ones" in faces.summary()

    usages = [row.split(",")[0] for row in ROWS]
    emotions = [3, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    rows = [f"{code},0 0,{usage}" for code, usage in zip(emotions, usages, strict=True)]
    by_row = tmp_path / "fer2013.csv"
    by_row.write_text("\n".join(["emotion,pixels,Usage", *rows]))
    same = FERPlus(root, labels="fer2013", fer2013_labels=by_row)
    assert torch.equal(same.targets, faces.targets)


def test_an_image_without_a_fer2013_label(root, tmp_path):
    path = tmp_path / "emotion.csv"
    path.write_text("image,emotion\nfer0.png,3\n")
    with pytest.raises(ValueError, match=r"emotion\.csv has no label for fer2\.png$"):
        FERPlus(root, labels="fer2013", fer2013_labels=path)


def test_in_memory_and_size(root):
    faces = FERPlus(root, size=20, in_memory=True)
    assert faces[1]["image"].shape == (3, 20, 20)
    assert faces[1]["image"].unique().tolist() == [3]


def test_subset_and_pickle(root):
    faces = pickle.loads(pickle.dumps(FERPlus(root).subset([1])))  # as a worker process gets it
    assert faces.ids == ["fer2.png"]
    assert faces[0]["image"].unique().tolist() == [3]


def test_images_that_the_table_does_not_name_are_counted(root):
    write_image(root / "data" / "FER2013Train" / "stray.png")
    (root / "data" / "FER2013Train" / "label.csv").write_text("FERPlus's own file, no image")
    (root / "data" / "FER2013Train" / "._stray.png").write_bytes(b"of macOS")
    assert FERPlus(root).excluded["without votes"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split must be 'train', .* or 'test', got 'val'"),
        ({"labels": "mean"}, "labels must be 'majority', 'probability', .* got 'mean'"),
        ({"num_classes": 6}, "num_classes must be 7, or 8 with contempt, got 6"),
        ({"duplicates": "keep"}, "duplicates must be error or drop, got 'keep'"),
        ({"labels": "fer2013"}, "labels='fer2013' needs .* pass fer2013_labels="),
        ({"fer2013_labels": "a.csv"}, "fer2013_labels is only for labels='fer2013'"),
        ({"size": 0}, "size must be a whole number from 1 on, got 0"),
    ],
)
def test_bad_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        FERPlus(root, **options)


def test_missing_folders_and_files(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        FERPlus(tmp_path / "nowhere")
    (root / "data" / "FER2013Valid").rename(root / "data" / "other")
    with pytest.raises(FileNotFoundError, match="FER2013Valid does not exist; FERPlus keeps"):
        FERPlus(root, "validation")
    (root / "data" / "FER2013Train" / "fer2.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"fer2013new\.csv, line 5: .*fer2\.png does not exist"
    ):
        FERPlus(root)
    (root / "data" / "FER2013Train" / "fer0.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"line 2: .*fer0\.png does not exist \(and 1 more\)"
    ):
        FERPlus(root)
    (root / "fer2013new.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"fer2013new\.csv does not exist"):
        FERPlus(root)


def test_a_broken_image_is_named(root):
    (root / "data" / "FER2013Train" / "fer2.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"fer2\.png cannot be read as an image"):
        FERPlus(root)[1]
    with pytest.raises(ValueError, match=r"fer2\.png cannot be read as an image"):
        FERPlus(root, in_memory=True)


GOOD = vote_row("a.png", fear=9)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (HEADER.replace(",anger", ""), [], r"line 1: .*anger missing"),
        (GOOD, [GOOD], r"line 1: the header must name the columns Usage, Image name"),
        (HEADER, [GOOD, "Training,b.png,1"], "line 3: .* each of 12 columns, got 3"),
        (HEADER, [GOOD, GOOD.replace("Training", "Train")], "line 3: Usage must be one of"),
        (HEADER, [GOOD.replace("9", "nine")], "line 2: fear must be a whole number .* 'nine'"),
        (HEADER, [GOOD.replace("9", "-9")], "line 2: fear must be a whole number .* '-9'"),
        (
            HEADER,
            [vote_row("a.png", fear=2**31)],
            r"line 2: fear must be a whole number .*2147483648",
        ),
        (HEADER + ",x,x", [vote_row("a.png", fear=9) + ",1,2"], "line 1: the header names x twice"),
        (HEADER, [vote_row("../a.png", fear=9)], r"line 2: '\.\./a\.png' leads out of"),
        (HEADER, [vote_row("/a.png", fear=9)], r"line 2: .* '/a\.png' leads out of"),
        (HEADER, [], "names no image of Usage 'Training'"),
        (HEADER, [vote_row("a.png", NF=9)], "every image of Usage 'Training' is left out"),
        (
            HEADER,
            [GOOD, vote_row("a.png", fear=8)],
            r"line 3: a\.png is named a second time, .* 2$",
        ),
    ],
)
@pytest.mark.parametrize("duplicates", ["error", "drop"])
def test_bad_tables(tmp_path, header, rows, message, duplicates):
    write_ferplus(tmp_path, rows, header=header)
    with pytest.raises(ValueError, match=r"fer2013new\.csv.*" + message):
        FERPlus(tmp_path, duplicates=duplicates)


def test_the_same_row_twice_is_an_error_unless_dropped(tmp_path):
    write_ferplus(tmp_path, [GOOD, vote_row("b.png", anger=9), GOOD])
    with pytest.raises(ValueError, match=r"line 4: a\.png is named .* duplicates='drop' counts"):
        FERPlus(tmp_path)
    faces = FERPlus(tmp_path, duplicates="drop")
    assert faces.ids == ["a.png", "b.png"]
    assert faces.excluded == {"named again with the same votes": 1}


@pytest.mark.skipif(
    "ROBUSTFER_FERPLUS" not in os.environ, reason="ROBUSTFER_FERPLUS names no folder of real faces"
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_real_faces(split):
    root = Path(os.environ["ROBUSTFER_FERPLUS"])
    labels = root / "fer2013_emotion.csv"
    faces = FERPlus(root, split, labels="fer2013", fer2013_labels=labels, duplicates="drop")
    usage = {"train": "Training", "validation": "PublicTest"}[split]
    with (root / "fer2013new.csv").open(newline="") as file:
        votes = {row["Image name"]: row for row in csv.DictReader(file) if row["Usage"] == usage}
    assert set(faces.ids) <= set(votes)
    for name, target in zip(faces.ids, faces.true_targets.tolist(), strict=True):
        most = max(EXPRESSIONS, key=lambda expression: int(votes[name][expression]))
        assert EXPRESSIONS[target] == most
    wrong = float((faces.targets != faces.true_targets).float().mean())
    assert 0.2 < wrong < 0.4
    assert faces[0]["image"].shape == (3, 48, 48)
