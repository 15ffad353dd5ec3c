import os
import re
from pathlib import Path

import pytest
import torch

from robustfer import cli
from robustfer.data import EXPRESSIONS, RAFDB, read_noise_list, with_symmetric_noise
from tests.data.trees import vote_row, write_ferplus, write_rafdb

LINES = [f"train_{number:05}.jpg {1 + number % 7}" for number in range(1, 41)]


@pytest.fixture
def run(capsys):
    """Run ``robustfer noise``; status, standard output and errors."""

    def run(*arguments):
        status = cli.main(["noise", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def raf(tmp_path):
    return write_rafdb(tmp_path / "raf", [*LINES, "test_0001.jpg 4"])


def test_make_show_verify(run, raf, tmp_path):
    noisy = tmp_path / "noise30.txt"
    make = ("make", f"rafdb:{raf}", "--rate", 0.3, "--seed", 5, "--output", noisy)
    status, out, err = run(*make)
    assert (status, err) == (0, "")
    assert "12 of 40 labels differ from the true ones: 30.00 %" in out
    faces = with_symmetric_noise(RAFDB(raf), rate=0.3, seed=5)
    assert torch.equal(read_noise_list(noisy).targets, faces.targets)
    [mark] = [line for line in out.splitlines() if line.startswith("fingerprint ")]

    status, out, err = run("show", f"rafdb:{raf}", "--list", noisy)
    assert (status, err) == (0, "")
    assert "12 of 40 labels differ" in out
    assert mark in out
    for clean in (f"rafdb:{raf}", raf / "EmoLabel" / "list_patition_label.txt"):
        status, out, err = run("verify", noisy, "--clean", clean)
        assert (status, err) == (0, "")
        assert "12 of 40 labels differ" in out
        assert "the list counts from 1 and has plain names" in out

    noisy.write_text(noisy.read_text() + "train_99999.jpg 1\n")
    status, out, err = run("verify", noisy, "--clean", f"rafdb:{raf}")
    assert (status, err) == (1, "")
    assert "PROBLEM: 1 names are not among the clean ones" in out


def test_the_other_format(run, raf, tmp_path):
    noisy = tmp_path / "noise.txt"
    run("make", f"rafdb:{raf}", "--rate", 0.1, "--names", "aligned", "--output", noisy)
    assert noisy.read_text().startswith("train_00001_aligned.jpg ")
    status, out, _ = run("verify", noisy, "--clean", f"rafdb:{raf}")
    assert status == 0
    assert "the list counts from 0 and has aligned names" in out


@pytest.mark.parametrize("model", ["symmetric-included", "lanet"])
@pytest.mark.parametrize("variant", ["exact", "bernoulli", "official"])
def test_models(run, raf, tmp_path, model, variant):
    noisy = tmp_path / "noise.txt"
    options = ("--rate", 0.5, "--model", model, "--variant", variant, "--output", noisy)
    status, out, err = run("make", f"rafdb:{raf}", *options)
    if (model, variant) == ("symmetric-included", "official"):
        assert status == 1
        assert "without the true one" in err
        assert not noisy.exists()
        return
    assert (status, err) == (0, "")
    assert "of 40 labels differ" in out
    assert len(read_noise_list(noisy, base=1).ids) == 40


def ferplus(tmp_path):
    rows = [
        vote_row("a.png", fear=8, surprise=2),
        vote_row("b.png", fear=9),
        vote_row("c.png", anger=10),
    ]
    own = tmp_path / "own.csv"
    own.write_text("image,emotion\na.png,5\nb.png,2\nc.png,0\n")
    return write_ferplus(tmp_path / "ferplus", rows), own


def test_own_labels_against_the_crowd(run, tmp_path):
    root, own = ferplus(tmp_path)
    options = ("--labels", "fer2013", "--fer2013-labels", own)
    status, out, err = run("show", f"ferplus:{root}", *options)
    assert (status, err) == (0, "")
    assert "left out: nothing" in out
    assert "1 of 3 labels differ from the true ones: 33.33 %" in out
    [row] = [line.split() for line in out.splitlines() if line.split()[:1] == ["fear"]]
    assert row == ["fear", "50.0", "50.0", *["0.0"] * 5, "2", "1", "50.0", "%"]


def test_the_crowd_against_its_majority(run, tmp_path):
    root, _ = ferplus(tmp_path)
    status, out, err = run("show", f"ferplus:{root}", "--crowd")
    assert (status, err) == (0, "")
    assert "2 of 29 labels differ" in out
    assert "counted are votes, not faces" in out
    noisy = tmp_path / "noise.txt"
    status, out, _ = run(
        "make", f"ferplus:{root}", "--model", "crowd", "--rate", 1, "--output", noisy
    )
    assert status == 0
    assert "2 of 3 labels differ" in out
    assert noisy.read_text() == "a.png 1\nb.png 1\nc.png 6\n"


@pytest.mark.skipif(
    "ROBUSTFER_FERPLUS" not in os.environ, reason="ROBUSTFER_FERPLUS names no folder of real faces"
)
def test_the_numbers_of_the_docs(run):
    root = Path(os.environ["ROBUSTFER_FERPLUS"])
    own = ("--labels", "fer2013", "--fer2013-labels", root / "fer2013_emotion.csv")
    status, out, _ = run("show", f"ferplus:{root}", *own, "--duplicates", "drop")
    assert status == 0
    page = (Path(__file__).parents[2] / "docs" / "label_noise.md").read_text()
    cells = [[cell.strip(" %").replace(",", "") for cell in line.split("|")[1:-1]]
             for line in page.splitlines() if line.startswith("| ")]  # fmt: skip
    rows = {row[0]: row[1:] for row in cells}
    found = [line.split() for line in out.splitlines() if line.split()[:1] and line.endswith("%")]
    matrix = {row[0]: row for row in found if row[0] in EXPRESSIONS}
    assert list(matrix) == list(EXPRESSIONS)
    for number, (name, row) in enumerate(matrix.items()):
        shares = {EXPRESSIONS[column]: float(row[1 + column]) for column in range(7)}
        shares.pop(EXPRESSIONS[number])
        most = max(shares, key=shares.get)
        assert rows[name] == [*row[8:11], f"{most} {shares[most]}"]
    total, wrong = 13_999, 3_955
    assert f"{wrong} of {total} labels differ" in out
    assert rows["all"] == [str(total), str(total), f"{100 * wrong / total:.1f}", ""]


def test_picture(run, raf, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "matrix.png"
    options = ("--rate", 0.3, "--output", tmp_path / "n.txt", "--picture", picture)
    status, out, _ = run("make", f"rafdb:{raf}", *options)
    assert status == 0
    assert picture.stat().st_size > 1000
    assert f"picture: {picture}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "rafdb:nowhere"), "the folder nowhere is not there"),
        (("show", "demo"), "knows no labels but its own"),
        (("show", "demo", "--crowd"), "has no votes of several people"),
        (("make", "demo", "--rate", 2, "--output", "n.txt"), r"rate must lie in \[0, 1\]"),
        (("verify", "none.txt", "--clean", "demo"), r"none\.txt is not there"),
        (("verify", "none.txt", "--clean", "clean.txt"), r"clean\.txt is not there"),
    ],
)
def test_mistakes_are_a_line(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("robustfer: ")
    assert re.search(message, err)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_the_list_should_go(run, tmp_path):
    folder = tmp_path / "noise30.txt"
    folder.mkdir()
    status, out, err = run("make", "demo", "--rate", 0.3, "--output", folder)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"robustfer: .*noise30\.txt'\n", err)
    assert list(tmp_path.iterdir()) == [folder]


def test_help(run, capsys):
    for arguments in (["--help"], ["make", "--help"], ["show", "--help"], ["verify", "-h"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["noise", *arguments])
        assert stopped.value.code == 0
        assert "usage: robustfer noise" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main(["noise", "make", "demo"])
    assert stopped.value.code == 2
    assert "--rate" in capsys.readouterr().err
