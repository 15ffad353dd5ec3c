"""The demo tells the whole story: its table, its page, its picture and its hundred labels."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from examples import demo
from robustfer.audit import read_decisions
from robustfer.data import DemoFaces
from robustfer.noise import (
    transition_from_verified,
    with_noise_list,
)
from robustfer.noise.matrices import noise_matrix

TRAINED, VERIFIED = 350, 60


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The folder of a demo of one epoch, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    arguments = [
        *("--epochs=1", f"--train-faces={TRAINED}", "--test-faces=28"),
        *(f"--verified={VERIFIED}", f"--output={folder}"),
    ]
    printed = []
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(sys, "argv", ["demo", *arguments])
        patch.setattr("builtins.print", lambda *words: printed.append(" ".join(map(str, words))))
        demo.main()
    return folder, "\n".join(printed)


@pytest.fixture(scope="module")
def faces(told):
    return with_noise_list(DemoFaces(TRAINED), told[0] / "labels.txt")


def test_one_table_has_a_row_for_each_training(told):
    rows = [re.split(r"\s*\|\s*", line) for line in told[1].splitlines() if line.startswith("|")]
    names, cells = [row[1] for row in rows[2:]], [row[2:7] for row in rows[2:]]
    assert rows[0][1:7] == [
        "method", "last epoch", "mean class", "best epoch", "wrong labels found",
        "of 200 suspects wrong",
    ]  # fmt: skip
    first, *others = demo.NAMES.values()
    assert names == [first, f"{first}, {demo.CORRECTED}", *others]
    corrected = cells.pop(1)
    assert all(0 <= float(cell.rstrip("%")) <= 100 for cell in corrected[:2])
    assert corrected[2:] == ["", "", ""]
    assert all(0 <= float(cell.rstrip("%")) <= 100 for row in cells for cell in row)


def test_what_is_printed_says_how_many_labels_are_wrong(told, faces):
    wrong = (faces.targets != faces.true_targets).double().mean()
    assert f"{wrong:.0%} of the training labels are wrong" in told[1]


def test_labels_go_wrong_as_the_confusions_say():
    faces = DemoFaces(1)
    matrix = noise_matrix(demo.CONFUSIONS, faces.classes)
    assert (matrix.argmax(1) == torch.arange(7)).all()  # else the classes would trade names
    given = matrix.mean(0)
    assert given[faces.classes.index("neutral")] < 0.6 / 7
    assert (given - 1 / 7).abs().sum() / 2 > 0.1


def test_the_hundred_verified_are_those_of_the_page(told, faces):
    page = (told[0] / "review.html").read_text()
    data = json.loads(re.search(r'<script id="data".*?>(.*?)</script>', page, re.S)[1])
    decisions = read_decisions(
        told[0] / "decisions.csv", faces.targets, classes=faces.classes, ids=faces.ids
    )
    assert len(decisions.drawn_index) == VERIFIED
    assert {faces.ids[row] for row in decisions.drawn_index} == {f["id"] for f in data["random"]}
    assert torch.equal(decisions.drawn_label, faces.true_targets[decisions.drawn_index])
    estimate = transition_from_verified(
        decisions.drawn_label, faces.targets[decisions.drawn_index], num_classes=7,
        given_counts=faces.targets.bincount(minlength=7),
    )  # fmt: skip
    assert estimate.text(faces.classes) in told[1]


@pytest.mark.parametrize(
    ("option", "fact"),
    [
        ("--train-faces=70", "--train-faces must be 200 or more, got 70; choose a larger"),
        ("--train-faces=0", "--train-faces must be 200 or more, got 0"),
        ("--test-faces=5", "--test-faces must be 6 or more, got 5"),
        ("--verified=3001", "--verified must be at most --train-faces, 3000, got 3001"),
        ("--verified=6", "--verified must be 7 or more, got 6"),
        ("--epochs=0", "--epochs must be 1 or more, got 0"),
    ],
)
def test_numbers_are_checked_before_a_training(option, fact, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo", option, f"--output={tmp_path}/demo"])
    with pytest.raises(SystemExit, match="2"):
        demo.main()
    assert fact in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_wrong_labels_are_counted_among_the_first_suspects():
    class Ranked:
        ranking = torch.tensor([2, 0, 1, 3])

    wrong = torch.tensor([False, True, True, False])
    assert [demo.share_wrong(Ranked, wrong, count) for count in (1, 2, 4)] == [1.0, 0.5, 0.5]


def test_the_picture_and_the_page_are_where_it_says(told):
    folder, text = told
    for name in ("demo.png", "review.html"):
        assert f"{folder / name}" in text
    assert np.asarray(Image.open(folder / "demo.png").convert("RGB")).std() > 10
    assert {path.name for path in folder.iterdir()} == {
        "demo.png", "review.html", "labels.txt", "decisions.csv",
    }  # fmt: skip
