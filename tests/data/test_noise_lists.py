import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import (
    EXPRESSIONS,
    RAFDB,
    class_order,
    fingerprint,
    read_noise_list,
    renumber,
    symmetric_noise,
    verify_noise_list,
    with_noise_list,
    with_symmetric_noise,
    write_noise_list,
)
from tests.data.trees import write_rafdb

IDS = [f"train_{number:05}.jpg" for number in range(1, 31)]
CLEAN = torch.arange(30) % 7
NOISY = symmetric_noise(CLEAN, IDS, num_classes=7, rate=0.3, seed=1)


def written(tmp_path, text):
    path = tmp_path / "noise.txt"
    path.write_text(text)
    return path


def plain(labels, ids=IDS):
    return "".join(f"{name} {label + 1}\n" for name, label in zip(ids, labels, strict=True))


def aligned(labels, folder="/faces/aligned/"):
    stems = [name.removesuffix(".jpg") for name in IDS]
    return "".join(
        f"{folder}{stem}_aligned.jpg {label}\n" for stem, label in zip(stems, labels, strict=True)
    )


@pytest.fixture
def faces(tmp_path):
    test = [f"test_{number:04}.jpg 4" for number in range(1, 4)]
    return RAFDB(write_rafdb(tmp_path / "raf", plain(CLEAN.tolist()).splitlines() + test))


@pytest.mark.parametrize(
    ("text", "base", "names"),
    [(plain, 1, "plain"), (aligned, 0, "aligned")],
)
def test_the_lists_in_circulation(tmp_path, faces, text, base, names):
    path = written(tmp_path, text(NOISY.tolist()))
    for noisy in (read_noise_list(path), read_noise_list(path, clean=faces)):
        assert (noisy.base, noisy.names) == (base, names)
        assert torch.equal(noisy.targets, NOISY)
        assert noisy.classes == EXPRESSIONS
        report = verify_noise_list(noisy, faces)
        assert (report.samples, report.changed, report.problems) == (30, 9, ())
        assert report.counts.sum(1).tolist() == CLEAN.bincount().tolist()
    given_faces = with_noise_list(faces, noisy)
    assert torch.equal(given_faces.targets, NOISY)
    assert torch.equal(given_faces.true_targets, CLEAN)


def test_windows_paths_and_lists_in_another_order_of_lines(tmp_path, faces):
    lines = aligned(NOISY.tolist(), folder="D:\\my faces\\").splitlines()
    noisy = read_noise_list(written(tmp_path, "\n".join(lines[::-1])))
    assert torch.equal(with_noise_list(faces, noisy).targets, NOISY)


@settings(deadline=None, max_examples=25)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    names=st.sampled_from(["plain", "aligned"]),
    base=st.sampled_from([None, 0, 1]),
)
def test_written_lists_are_read_again(tmp_path_factory, labels, names, base):
    path = tmp_path_factory.mktemp("lists") / "noise.txt"
    targets, ids = torch.tensor(labels), IDS[: len(labels)]
    write_noise_list(path, ids, targets, names=names, base=base)
    first = base if base is not None else int(names == "plain")
    noisy = read_noise_list(path, base=first)
    assert torch.equal(noisy.targets, targets)
    assert list(noisy.ids) == ids
    assert (noisy.base, noisy.names) == (first, names)


def test_written_as_the_ones_in_circulation(tmp_path):
    path = tmp_path / "noise.txt"
    write_noise_list(path, IDS, NOISY)
    assert path.read_text() == plain(NOISY.tolist())
    write_noise_list(path, IDS, NOISY, names="aligned")
    assert path.read_text() == aligned(NOISY.tolist(), folder="")


def test_which_number_comes_first_may_show_by_the_clean_labels_alone(tmp_path):
    # Neither surprise nor neutral occurs: 1 to 5 may be counted from 0 or from 1.
    ids, clean = IDS[:20], 1 + torch.arange(20) % 5
    clean_list = read_noise_list(written(tmp_path, plain(clean.tolist(), ids)), base=1)
    noisy = clean.clone()
    noisy[:5] = noisy[:5] % 5 + 1
    for base in (0, 1):
        path = tmp_path / f"from{base}.txt"
        write_noise_list(path, ids, noisy, base=base)
        with pytest.raises(ValueError, match="has neither 0 nor 7, .* say base=, or give the cl"):
            read_noise_list(path)
        found = read_noise_list(path, clean=clean_list)
        assert found.base == base
        assert verify_noise_list(found, clean_list).changed == 5


def test_against_the_clean_list(tmp_path, faces):
    table = tmp_path / "raf" / "EmoLabel" / "list_patition_label.txt"
    clean = read_noise_list(table)
    noisy = read_noise_list(written(tmp_path, plain(NOISY.tolist())), clean=clean)
    report = verify_noise_list(noisy, clean)
    assert (report.samples, report.changed, report.problems) == (30, 9, ())
    # A list of both splits: the test images are no part of the rate, and must not change.
    both = plain(NOISY.tolist()) + "test_0001.jpg 4\ntest_0002.jpg 5\ntest_0003.jpg 4\n"
    report = verify_noise_list(read_noise_list(written(tmp_path, both)), clean)
    assert (report.samples, report.changed) == (30, 9)
    assert report.problems == ("1 labels of test images differ from the clean ones",)
    assert "test images, not counted above: 3, compared: 3" in report.text()
    report = verify_noise_list(read_noise_list(written(tmp_path, both)), faces)
    assert report.problems == ()
    assert "test images, not counted above: 3, compared: 0" in report.text()


def test_what_does_not_match_is_reported(tmp_path, faces):
    lines = plain(NOISY.tolist()).splitlines()
    text = "\n".join([*lines[2:], "train_99999.jpg 3"])
    report = verify_noise_list(read_noise_list(written(tmp_path, text)), faces)
    assert report.problems == (
        "1 names are not among the clean ones, like train_99999.jpg",
        "2 clean names are missing from the list, like train_00001.jpg",
    )
    assert report.samples == 28
    assert "PROBLEM: 1 names are not" in report.text()
    with pytest.raises(ValueError, match=r"no label for 2 of 30 samples, the first 'train_00001"):
        with_noise_list(faces, read_noise_list(written(tmp_path, text)))
    foreign = read_noise_list(written(tmp_path, "a.jpg 1\nb.jpg 7\n"))
    with pytest.raises(ValueError, match=r"shares no name with the clean labels: it has 'a\.jpg'"):
        verify_noise_list(foreign, faces)


def test_lists_that_count_the_classes_in_another_order(tmp_path, faces):
    theirs = renumber(NOISY, source=EXPRESSIONS, target="fer2013")
    path = written(tmp_path, "".join(f"{n} {t}\n" for n, t in zip(IDS, theirs, strict=True)))
    wrong = read_noise_list(path)
    (problem,) = verify_noise_list(wrong, faces).problems
    assert problem.startswith("more than half of the labels differ: another order of the classes?")
    assert "In that of fer2013, counted from 0, 30.0% differ." in problem
    with pytest.raises(ValueError, match="differs from the data set in .*: another order"):
        with_noise_list(faces, wrong)
    right = read_noise_list(path, classes="fer2013")
    assert right.classes == class_order("fer2013")
    assert verify_noise_list(right, faces).changed == 9
    assert torch.equal(with_noise_list(faces, right).targets, NOISY)
    # What fits no known order gets no advice.
    shuffled = (CLEAN + 1) % 7
    (problem,) = verify_noise_list(
        read_noise_list(written(tmp_path, plain(shuffled.tolist()))), faces
    ).problems
    assert problem.endswith("classes?")


def test_a_subset_takes_its_labels(tmp_path, faces):
    noisy = read_noise_list(written(tmp_path, plain(NOISY.tolist())))
    rows = torch.tensor([7, 3, 21])
    assert torch.equal(with_noise_list(faces.subset(rows), noisy).targets, NOISY[rows])


def test_the_same_noise_has_the_same_fingerprint(tmp_path, faces):
    made = with_symmetric_noise(faces, rate=0.3, seed=1)
    assert torch.equal(made.targets, NOISY)
    mark = fingerprint(made.ids, made.targets, made.classes)
    moved = made.with_classes("fer2013").subset(list(range(29, -1, -1)))
    assert fingerprint(moved.ids, moved.targets, moved.classes) == mark
    other = with_symmetric_noise(faces, rate=0.3, seed=2)
    assert fingerprint(other.ids, other.targets, other.classes) != mark


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.jpg 0\nb.jpg 7\n", {}, "neither from 0 nor from 1: line 1 has 0, line 2 has 7"),
        ("a.jpg 1\nb.jpg 7\na.jpg 2\n", {}, "line 3: a.jpg is named a second time, after line 1"),
        ("a.jpg 1\nb.jpg 0\n", {"base": 1}, "line 2: a label must lie in 1 to 7, got 0"),
        ("a.jpg 1\nb.jpg 7\n", {"base": 0}, "line 2: a label must lie in 0 to 6, got 7"),
        ("a.jpg 1\n", {"base": 2}, "base must be 0, 1 or None, got 2"),
        ("a.jpg 1\n", {"classes": "raf"}, "numbering must be one of rafdb"),
        ("a.jpg\n", {}, "line 1: must be a name and a whole number"),
        ("a.jpg 1\na_aligned.jpg 7\n", {}, "line 2: a.jpg is named a second time"),
    ],
)
def test_bad_lists(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        read_noise_list(written(tmp_path, text), **options)


def test_two_names_of_one_sample(tmp_path, faces):
    noisy = read_noise_list(written(tmp_path, "train_00001.jpg 1\nx/train_00001.jpg 7\n"))
    with pytest.raises(ValueError, match=r"several labels for 'train_00001\.jpg': \['train_00001"):
        verify_noise_list(noisy, faces)


def test_probabilities_are_no_clean_labels(tmp_path, faces):
    soft = faces.with_targets(torch.full((30, 7), 1 / 7))
    noisy = read_noise_list(written(tmp_path, plain(NOISY.tolist())))
    with pytest.raises(ValueError, match="the clean labels are probabilities"):
        verify_noise_list(noisy, soft)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "long"}, "names must be plain or aligned, got 'long'"),
        ({"base": 2}, "base must be 0, 1 or None, got 2"),
        ({"targets": CLEAN[:3]}, r"targets must be int64 of shape \(30\), got torch.int64 of sha"),
        ({"targets": CLEAN.float()}, r"targets must be int64 of shape \(30\), got torch.float32"),
    ],
)
def test_bad_arguments_of_writing(tmp_path, options, message):
    arguments = {"targets": CLEAN} | options
    with pytest.raises(ValueError, match=message):
        write_noise_list(tmp_path / "noise.txt", IDS, arguments.pop("targets"), **arguments)
    assert not (tmp_path / "noise.txt").exists()
