import os
import re
from pathlib import Path

import pytest
import torch

from robustfer import _names, cli
from robustfer.data import EXPRESSIONS, NUMBERINGS, RAFDB, FERPlus, loading
from robustfer.noise import (
    NoiseProfile,
    noise_report,
    with_instance_noise,
    with_noise_like,
    with_symmetric_noise,
)
from robustfer.noise.lists import read_noise_list
from tests.data.trees import vote_row, write_ferplus, write_image, write_rafdb

MAKE = ("make", "demo", "--output", "n.txt", "--model")
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


def test_verify_compares_the_other_splits(run, tmp_path):
    tests = [f"test_{number:04}.jpg {1 + number % 7}" for number in range(1, 6)]
    raf = write_rafdb(tmp_path / "raf", [*LINES, *tests])
    noisy = tmp_path / "noise.txt"
    noisy.write_text("\n".join([*LINES, *tests]))
    verify = ("verify", noisy, "--clean", f"rafdb:{raf}")
    status, out, err = run(*verify)
    assert (status, err) == (0, "")
    assert "images of other splits, not counted above: 5, compared: 5" in out
    noisy.write_text("\n".join([*LINES, *tests[:4], "test_0005.jpg 2"]))
    status, out, err = run(*verify)
    assert (status, err) == (1, "")
    assert "PROBLEM: 1 labels of images of other splits differ" in out
    assert "'test_0005.jpg'" in out
    # Where the images of a split are not there, its labels cannot be compared: no success.
    (raf / "Image" / "aligned" / "test_0002_aligned.jpg").unlink()
    status, out, err = run(*verify)
    assert (status, err) == (1, "")
    assert "PROBLEM: 5 test images have no clean label to compare with" in out
    assert re.search(
        r"not compared with the split test: .*test_0002_aligned\.jpg does not exist", out
    )


def write_folders(root, splits):
    for split, count in splits.items():
        for number in range(count):
            name = ("happy", "sad", "angry")[number % 3]
            write_image(root / split / name / f"{number}.png")
    return root


def test_verify_of_a_folder_with_three_splits(run, tmp_path):
    root = write_folders(tmp_path / "faces", {"train": 9, "val": 6, "test": 3})
    lists = []
    for split in ("train", "validation", "test"):
        path = tmp_path / f"{split}.txt"
        make = ("make", f"folder:{root}", "--split", split, "--rate", 0.34, "--base", 0)
        assert run(*make, "--output", path)[0] == 0
        lists.append(path.read_text())
    clean = [tmp_path / "clean.txt", "--split"]
    whole = ["".join(lists[:1])]
    for split in ("validation", "test"):
        run("make", f"folder:{root}", "--split", split, "--rate", 0, "--base", 0, "--output",
            clean[0])  # fmt: skip
        whole.append(clean[0].read_text())
    noisy = tmp_path / "noisy.txt"
    verify = ("verify", noisy, "--clean", f"folder:{root}", "--base", 0)
    noisy.write_text("".join(whole))
    status, out, err = run(*verify)
    assert (status, err) == (0, "")
    assert "images of other splits, not counted above: 9, compared: 9" in out
    for changed in (1, 2):
        noisy.write_text("".join(lists[n] if n == changed else whole[n] for n in range(3)))
        status, out, err = run(*verify)
        assert (status, err) == (1, "")
        assert f"PROBLEM: {2 if changed == 1 else 1} labels of images of other splits" in out
    # A list of another split is none of this one.
    noisy.write_text(lists[2])
    for command in (verify, ("show", f"folder:{root}", "--list", noisy, "--base", 0)):
        status, out, err = run(*command)
        assert (status, out) == (1, "")
        assert re.search("shares no name|no label for 9 of 9", err)


def test_what_cannot_be_found_out_can_be_said(run, tmp_path):
    root = write_folders(tmp_path / "faces", {"train": 9})
    noisy = tmp_path / "noisy.txt"
    # Each of the three numbers is wrong, from 0 and from 1.
    files = sorted((root / "train").glob("*/*.png"))
    numbers = {"happy": 2, "sad": 2, "angry": 2}
    noisy.write_text(
        "".join(f"{f.relative_to(root).as_posix()} {numbers[f.parent.name]}\n" for f in files)
    )
    show = ("show", f"folder:{root}", "--list", noisy)
    status, out, err = run(*show)
    assert (status, out) == (1, "")
    assert "pass base=" in err
    status, out, err = run(*show, "--base", 1)
    assert (status, err) == (0, "")
    assert "fear" in out
    status, out, err = run(*show, "--base", 0, "--order", "fer2013")
    assert (status, err) == (0, "")
    clean = tmp_path / "clean.txt"
    clean.write_text(noisy.read_text())
    verify = ("verify", noisy, "--clean", clean, "--base", 1)
    assert "pass base=" in run(*verify)[2]
    status, out, err = run(*verify, "--clean-base", 1)
    assert (status, err) == (0, "")
    assert "0 of 9 labels differ" in out


def test_much_noise_is_no_problem(run, raf, tmp_path):
    noisy = tmp_path / "noise80.txt"
    assert run("make", f"rafdb:{raf}", "--rate", 0.8, "--output", noisy)[0] == 0
    status, out, err = run("verify", noisy, "--clean", f"rafdb:{raf}")
    assert (status, err) == (0, "")
    assert "more than half of the labels differ, and no known order" in out
    assert run("show", f"rafdb:{raf}", "--list", noisy)[0] == 0


def test_names_that_cannot_be_written_leave_no_file(run, tmp_path):
    root = tmp_path / "faces"
    for name in ("1.png", "1_aligned.png", "2.png"):
        write_image(root / "train" / "happy" / name)
    noisy = tmp_path / "noise.txt"
    status, out, err = run("make", f"folder:{root}", "--rate", 0.3, "--output", noisy)
    assert (status, out) == (1, "")
    assert "'train/happy/1.png' and 'train/happy/1_aligned.png' are one name" in err
    assert not noisy.exists()


def test_votes_without_a_majority_are_named(run, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,label,votes\na.png,happy,1;1;0;0;0;0;0\n")
    status, out, err = run("show", f"table:{tmp_path / 't.csv'}", "--split", "all", "--crowd")
    assert (status, out) == (1, "")
    assert "no face of the data set has more than half of its votes" in err


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
        assert "true_class='excluded'" in err
        assert not noisy.exists()
        return
    assert (status, err) == (0, "")
    assert "of 40 labels differ" in out
    assert len(read_noise_list(noisy, base=1).ids) == 40


def test_noise_like_a_profile(run, raf, tmp_path):
    noisy, again = tmp_path / "like.txt", tmp_path / "again.txt"
    make = ("make", f"rafdb:{raf}", "--model", "profile", "--seed", 4)
    status, out, err = run(*make, "--profile", "fer2013", "--output", noisy)
    assert (status, err) == (0, "")
    expected = with_noise_like(RAFDB(raf), NoiseProfile.load("fer2013"), seed=4)
    assert torch.equal(read_noise_list(noisy, base=1).targets, expected.targets)

    profile = tmp_path / "own.json"
    show = ("show", f"rafdb:{raf}", "--list", noisy, "--base", 1)
    status, out, err = run(*show, "--save-profile", profile)
    assert (status, err) == (0, "")
    assert f"profile: {profile}" in out
    found = NoiseProfile.load(profile)
    assert torch.equal(found.counts, noise_report(expected).counts)
    assert str(tmp_path) not in profile.read_text()
    status, out, err = run(*make, "--profile", profile, "--output", again)
    assert (status, err) == (0, "")
    again = RAFDB(raf).with_targets(read_noise_list(again, base=1).targets)
    assert torch.equal(noise_report(again).counts, found.counts)


def test_noise_by_probabilities_and_votes(run, tmp_path):
    root, _ = ferplus(tmp_path)
    noisy, votes = tmp_path / "noise.txt", FERPlus(root).votes.double()
    shares = votes / votes.sum(1, keepdim=True)
    make = ("make", f"ferplus:{root}", "--model", "instance", "--rate", 0.4, "--output", noisy)
    status, _, err = run(*make, "--probabilities", "votes")
    assert (status, err) == (0, "")
    expected = with_instance_noise(FERPlus(root), shares, rate=0.4, seed=0)
    assert torch.equal(read_noise_list(noisy, base=1).targets, expected.targets)
    # The same from a file that has other orders of samples and classes.
    names = FERPlus(root).classes[::-1]
    lines = [",".join(("id", *names))]
    for name, row in zip(FERPlus(root).ids[::-1], shares.flip(0, 1).tolist(), strict=True):
        lines.append(",".join((name, *map(repr, row))))
    (tmp_path / "p.csv").write_text("\n".join(lines))
    before = noisy.read_text()
    status, _, err = run(*make, "--probabilities", tmp_path / "p.csv")
    assert (status, err) == (0, "")
    assert noisy.read_text() == before


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
    options = ("--reader", "labels=fer2013", "--reader", f"fer2013_labels={own}")
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
    assert "the counts are votes, not faces" in out
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
    given = ("labels=fer2013", "duplicates=drop", f"fer2013_labels={root / 'fer2013_emotion.csv'}")
    options = [part for option in given for part in ("--reader", option)]
    status, out, _ = run("show", f"ferplus:{root}", *options)
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


@pytest.mark.parametrize("name", ["matrix.foo", "matrix"])
def test_a_picture_that_cannot_be_drawn_leaves_no_list(run, raf, tmp_path, name):
    pytest.importorskip("matplotlib")
    noisy = tmp_path / "noise.txt"
    options = ("--rate", 0.3, "--output", noisy, "--picture", tmp_path / name)
    status, out, err = run("make", f"rafdb:{raf}", *options)
    assert (status, out) == (1, "")
    assert re.search(rf"must end in one of .*\.png.*, got .*{name}$", err.strip())
    assert not noisy.exists()


def test_the_names_that_may_be_chosen_are_those_that_exist():
    assert tuple(loading._READERS) == _names.DATA_SETS
    assert tuple(NUMBERINGS) == _names.NUMBERINGS


def test_options_of_the_reader(run, tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("pth;label\na.png;1\n")
    options = ["separator=;", "columns={'path': 'pth'}", "numbers=rafdb"]
    options = [part for option in options for part in ("--reader", option)]
    make = ["make", f"table:{tmp_path / 't.csv'}", "--split", "all", "--rate", 0]
    status, _, err = run(*make, *options, "--output", tmp_path / "n.txt")
    assert (status, err) == (0, "")
    assert (tmp_path / "n.txt").read_text() == "a.png 1\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "rafdb:nowhere"), "the folder nowhere does not exist"),
        (("show", "demo"), "has no true_targets"),
        (("show", "demo", "--reader", "num_sample=9"), r"did you mean 'num_samples'\?"),
        (("show", "rafdb:x", "--reader", "seed=1"), "rafdb has no option seed; it has images, "),
        (("show", "rafdb:.", "--reader", "size=x"), "size must be|does not exist"),
        (("show", "demo", "--crowd"), "has no votes of several people"),
        (("make", "demo", "--rate", 2, "--output", "n.txt"), r"rate must lie in \[0, 1\]"),
        (("make", "demo", "--output", "n.txt"), "symmetric got no rate; add --rate"),
        ((*MAKE, "profile", "--rate", 0.1, "--profile", "fer2013"), "remove --rate"),
        ((*MAKE, "profile"), "add --profile"),
        ((*MAKE, "profile", "--profile", "no.json"), "no.json does not exist.*fer2013"),
        ((*MAKE, "instance", "--rate", 0.1), "add --probabilities"),
        ((*MAKE, "instance", "--rate", 0.1, "--probabilities", "votes"), "needs votes of several"),
        ((*MAKE, "instance", "--rate", 0.1, "--probabilities", "p.csv"), "p.csv does not exist"),
        (
            (*MAKE, "lanet", "--rate", 0.1, "--probabilities", "votes"),
            "does not take --probabilities",
        ),
        ((*MAKE, "lanet", "--rate", 0.1, "--profile", "fer2013"), "does not take --profile"),
        (
            (*MAKE, "profile", "--profile", "fer2013", "--variant", "bernoulli"),
            "does not take --variant, got bernoulli",
        ),
        (("verify", "none.txt", "--clean", "demo"), r"none\.txt does not exist"),
        (("verify", "none.txt", "--clean", "clean.txt"), r"clean\.txt does not exist"),
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
        cli.main(["noise", "make", "demo", "--rate", "0.1", "--model", "uniform"])
    assert stopped.value.code == 2
    assert "symmetric-included" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        cli.main(["noise", "make", "demo"])
    assert stopped.value.code == 2
    assert "--rate" in capsys.readouterr().err


def test_no_file_that_is_read_is_replaced(run, raf, tmp_path):
    labels = raf / "EmoLabel" / "list_patition_label.txt"
    noisy = tmp_path / "noisy.txt"
    assert run("make", f"rafdb:{raf}", "--rate", 0.3, "--output", noisy)[0] == 0
    before = labels.read_bytes(), noisy.read_bytes()
    for arguments in (
        ("make", f"rafdb:{raf}", "--rate", 0.3, "--output", labels),
        ("show", f"rafdb:{raf}", "--list", noisy, "--save-profile", noisy),
        ("verify", noisy, "--clean", labels, "--picture", noisy.with_suffix(".png")),
    ):
        noisy.with_suffix(".png").unlink(missing_ok=True)
        noisy.with_suffix(".png").symlink_to(labels)
        status, _, err = run(*arguments)
        assert status == 1
        assert f"{arguments[-2]} must not " in err
        assert (labels.read_bytes(), noisy.read_bytes()) == before


@pytest.mark.parametrize("option", [("--list", "a.txt"), ("--save-profile", "p.json")])
def test_a_crowd_takes_no_other_option(run, option):
    status, _, err = run("show", "demo", "--reader", "voters=10", "--crowd", *option)
    assert status == 1
    assert f"--crowd does not read {option[0]}; remove one" in err


def test_a_split_is_no_option_of_the_reader(run, tmp_path):
    status, _, err = run(
        "make", "demo", "--reader", "split=test", "--rate", 0.3, "--output", "n.txt"
    )
    assert status == 1
    assert "choose the split with --split, got --reader split=test" in err
    assert not (tmp_path / "n.txt").exists()
