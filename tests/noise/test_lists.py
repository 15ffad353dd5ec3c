import copy
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import EXPRESSIONS, RAFDB, LabeledFaces
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT, class_order, renumber
from robustfer.noise import (
    fingerprint,
    with_class_noise,
    with_noise_list,
    with_symmetric_noise,
    write_noise_list,
)
from robustfer.noise.lists import read_noise_list
from robustfer.noise.models import symmetric_noise
from robustfer.noise.verification import verify_noise_list
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
    given_faces = with_noise_list(faces, path)
    assert torch.equal(given_faces.targets, NOISY)
    assert torch.equal(given_faces.true_targets, CLEAN)


def test_windows_paths_and_lists_in_another_order_of_lines(tmp_path, faces):
    lines = aligned(NOISY.tolist(), folder="D:\\my faces\\").splitlines()
    path = written(tmp_path, "\n".join(lines[::-1]))
    assert torch.equal(with_noise_list(faces, path).targets, NOISY)


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
        with pytest.raises(ValueError, match="has neither 0 nor 7, .* pass base=, or the cl"):
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
    (problem,) = report.problems
    assert problem.startswith("1 labels of images of other splits differ from the clean ones")
    assert "'test_0002.jpg'" in problem
    assert "images of other splits, not counted above: 3, compared: 3" in report.text()
    report = verify_noise_list(read_noise_list(written(tmp_path, both)), faces)
    assert report.problems == ()
    assert "images of other splits, not counted above: 3, compared: 0" in report.text()


def test_what_does_not_match_is_reported(tmp_path, faces):
    lines = plain(NOISY.tolist()).splitlines()
    text = "\n".join([*lines[2:], "train_99999.jpg 3"])
    report = verify_noise_list(read_noise_list(written(tmp_path, text)), faces)
    assert report.problems == (
        "1 names are not among the clean ones, like 'train_99999.jpg'",
        "2 clean names are missing from the list, like 'train_00001.jpg'",
    )
    assert report.samples == 28
    assert "PROBLEM: 1 names are not" in report.text()
    with pytest.raises(ValueError, match=r"no label for 2 of 30 samples, the first 'train_00001"):
        with_noise_list(faces, written(tmp_path, text))
    foreign = read_noise_list(written(tmp_path, "a.jpg 1\nb.jpg 7\n"))
    with pytest.raises(ValueError, match=r"shares no name with the clean labels: it has 'a\.jpg'"):
        verify_noise_list(foreign, faces)


def test_lists_that_count_the_classes_in_another_order(tmp_path, faces):
    theirs = renumber(NOISY, source=EXPRESSIONS, target="fer2013")
    path = written(tmp_path, "".join(f"{n} {t}\n" for n, t in zip(IDS, theirs, strict=True)))
    wrong = read_noise_list(path)
    (problem,) = verify_noise_list(wrong, faces).problems
    assert problem.startswith(
        "76.7% of the labels differ: the list may have another order of the classes."
    )
    assert "In that of fer2013, counted from 0, 30.0% differ." in problem
    with pytest.raises(ValueError, match="differs from the data set in .* another order"):
        with_noise_list(faces, path)
    right = read_noise_list(path, classes="fer2013")
    assert right.classes == class_order("fer2013")
    assert verify_noise_list(right, faces).changed == 9
    assert torch.equal(with_noise_list(faces, path, classes="fer2013").targets, NOISY)
    # What fits no known order is said, and no reason to refuse the list.
    shuffled = (CLEAN + 1) % 7
    path = written(tmp_path, plain(shuffled.tolist()))
    listed = read_noise_list(path)
    report = verify_noise_list(listed, faces)
    assert report.problems == ()
    assert "more than half of the labels differ, and no known order" in report.text()
    assert "do not agree more often than by chance" in report.text()
    assert torch.equal(with_noise_list(faces, path).targets, shuffled)


@pytest.mark.parametrize("rate", [0.6, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_lists_of_much_noise_are_taken(tmp_path, rate, seed):
    clean = Listed(700)
    noisy = with_symmetric_noise(clean, rate=rate, seed=seed)
    path = tmp_path / "noise.txt"
    write_noise_list(path, noisy.ids, noisy.targets)
    listed = read_noise_list(path, clean=clean)
    assert torch.equal(with_noise_list(clean, path).targets, noisy.targets)
    report = verify_noise_list(listed, clean)
    assert report.problems == ()
    assert "no known order of the classes fits" in report.text()
    for confusions in ("lanet", PAIRS, {new: old for old, new in PAIRS.items()}):
        noisy = with_class_noise(clean, confusions, rate=rate, seed=seed)
        write_noise_list(path, noisy.ids, noisy.targets)
        listed = read_noise_list(path, clean=clean, base=1)
        assert verify_noise_list(listed, clean).problems == ()
        assert torch.equal(with_noise_list(clean, path, base=1).targets, noisy.targets)


# A label becomes the next one, as in noise of pairs.
PAIRS = {name: EXPRESSIONS[number - 6] for number, name in enumerate(EXPRESSIONS)}


class Listed(LabeledFaces):
    """Samples without images, their classes as frequent as RAF-DB's."""

    SHARES = torch.tensor([0.105, 0.023, 0.058, 0.389, 0.162, 0.057, 0.206])

    def __init__(self, count, classes=EXPRESSIONS):
        steps = self.SHARES.cumsum(0) * count
        targets = (torch.arange(count)[:, None] >= steps).sum(1).clamp(max=6)
        ids = [f"{number}.jpg" for number in range(count)]
        super().__init__(classes=classes, ids=ids, targets=targets)

    def load_image(self, row):
        return torch.zeros(3, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.6, 0.7])
@pytest.mark.parametrize("order", ["fer2013", "affectnet", "ferplus"])
def test_another_order_is_refused_where_it_fits_better(tmp_path, rate, order):
    clean = Listed(700)
    noisy = with_symmetric_noise(clean, rate=rate, seed=0)
    path = tmp_path / "noise.txt"
    write_noise_list(
        path, noisy.ids, renumber(noisy.targets, source=EXPRESSIONS, target=order), base=0
    )
    wrong = read_noise_list(path, base=0)  # differs in less than half of the labels, at times
    (problem,) = verify_noise_list(wrong, clean).problems
    assert f"In that of {order}, counted from 0, {rate:.1%} differ" in problem
    with pytest.raises(ValueError, match=f"another order of the .* classes='{order}', base=0$"):
        with_noise_list(clean, path, base=0)
    right = with_noise_list(clean, path, classes=order, base=0)
    assert torch.equal(right.targets, noisy.targets)


def test_numbers_by_the_alphabet_are_recognised(tmp_path):
    clean = Listed(700)
    noisy = with_symmetric_noise(clean, rate=0.3, seed=0)
    path, order = tmp_path / "noise.txt", sorted(EXPRESSIONS)
    write_noise_list(
        path, noisy.ids, renumber(noisy.targets, source=EXPRESSIONS, target=order), base=0
    )
    message = r"In that of the alphabet, .* classes=sorted\(dataset\.classes\), base=0"
    with pytest.raises(ValueError, match=message):
        with_noise_list(clean, path, base=0)
    right = with_noise_list(clean, path, classes=sorted(clean.classes), base=0)
    assert torch.equal(right.targets, noisy.targets)


def test_the_fitting_order_where_more_classes_are_declared_than_occur(tmp_path, faces):
    declared = faces.with_classes(EXPRESSIONS_WITH_CONTEMPT)
    theirs = renumber(NOISY, source=EXPRESSIONS, target="fer2013")
    path = tmp_path / "noise.txt"
    write_noise_list(path, IDS, theirs, base=0)
    wrong = read_noise_list(path, clean=declared)
    (problem,) = verify_noise_list(wrong, declared).problems
    assert "In that of fer2013, counted from 0, 30.0% differ." in problem
    with pytest.raises(ValueError, match="In that of fer2013, counted from 0, 30.0% differ"):
        with_noise_list(declared, path)


def test_the_fitting_order_of_numbers_that_the_data_set_does_not_have(tmp_path, faces):
    theirs = renumber(NOISY, source=EXPRESSIONS, target="affectnet")
    theirs[2] = 7  # AffectNet's contempt
    path = tmp_path / "noise.txt"
    write_noise_list(path, IDS, theirs, base=0)
    message = "neither from 0 nor from 1: .* In that of affectnet, .* classes='affectnet', base=0"
    with pytest.raises(ValueError, match=message):
        read_noise_list(path, clean=faces)
    with pytest.raises(ValueError, match="neither from 0 nor from 1: line 21 has 0, line 3 has 7$"):
        read_noise_list(path)
    path.write_text(path.read_text().replace(" 7", f" {10**9}"))
    with pytest.raises(ValueError, match=f"neither from 0 nor from 1: .*, line 3 has {10**9}$"):
        read_noise_list(path, clean=faces)


def test_a_data_set_may_name_its_classes_by_synonyms(tmp_path):
    words = ["surprised", "afraid", "disgusted", "happy", "sad", "angry", "neutrality"]
    faces, path = Listed(70, classes=words), tmp_path / "noise.txt"
    write_noise_list(path, faces.ids, faces.targets)
    assert torch.equal(with_noise_list(faces, path).targets, faces.targets)
    numbers = renumber(faces.targets, source=EXPRESSIONS, target="fer2013")
    write_noise_list(path, faces.ids, numbers)
    with pytest.raises(ValueError, match=r"In that of (fer2013|lanet), counted from 1, 0\.0%"):
        with_noise_list(faces, path)


def test_a_wrong_base_of_classes_of_ones_own(tmp_path):
    clean = Listed(70, classes=list("abcdefg"))
    clean = clean.with_targets(clean.targets.clamp(1, 5))
    path = tmp_path / "noise.txt"
    write_noise_list(path, clean.ids, clean.targets, base=1)
    with pytest.raises(ValueError, match=r"In that of the data set, counted from 1, 0\.0% differ"):
        with_noise_list(clean, path, base=0)


def in_folders(faces, folder):
    """The same samples in a folder."""
    other = copy.copy(faces)
    other._ids = [f"{folder}/{name}" for name in faces.ids]
    return other


def test_a_name_may_be_the_end_of_the_other(tmp_path, faces):
    path = written(tmp_path, plain(NOISY.tolist(), [f"a/b/{n}" for n in IDS]))
    noisy = read_noise_list(path)
    for known in (faces, in_folders(faces, "b"), in_folders(faces, "/data/a/b")):
        assert torch.equal(with_noise_list(known, path).targets, NOISY)
        assert verify_noise_list(noisy, known).problems == ()
    for other in (in_folders(faces, "c"), in_folders(faces, "a/c"), in_folders(faces, "xa/b")):
        with pytest.raises(ValueError, match="no label for 30 of 30 samples, the first"):
            with_noise_list(other, path)
        with pytest.raises(ValueError, match="shares no name with the clean labels"):
            verify_noise_list(noisy, other)
    # "rain_00001.jpg" is the end of a name, but not from a folder on.
    cut = written(tmp_path, plain(NOISY.tolist(), [n[1:] for n in IDS]))
    with pytest.raises(ValueError, match="no label for 30 of 30"):
        with_noise_list(faces, cut)


def test_a_name_that_fits_several_samples_is_refused(tmp_path):
    clean = Listed(3)
    clean._ids = ["anna/1.jpg", "carl/1.jpg", "carl/2.jpg"]
    path = written(tmp_path, "1.jpg 1\n2.jpg 7\n")
    listed = read_noise_list(path)
    for refused in (
        lambda: with_noise_list(clean, path),
        lambda: verify_noise_list(listed, clean),
    ):
        with pytest.raises(ValueError, match=r"'1\.jpg' fits several samples .* 'anna/1\.jpg'"):
            refused()
    whole = written(tmp_path, "x/anna/1.jpg 1\ncarl/1.jpg 7\ncarl/2.jpg 2\n")
    assert with_noise_list(clean, whole).targets.tolist() == [0, 6, 1]


def test_samples_with_one_name_in_a_list_are_refused(tmp_path):
    clean = Listed(2)
    clean._ids = ["a.jpg", "a_aligned.jpg"]
    with pytest.raises(ValueError, match=r"ids 'a\.jpg' and 'a_aligned\.jpg' are one name"):
        with_noise_list(clean, written(tmp_path, "a.jpg 1\nb.jpg 7\n"))


@pytest.mark.parametrize("names", ["plain", "aligned"])
@pytest.mark.parametrize(
    "ids",
    [
        [os.fsdecode(b"\xc0\xb6_0.png"), "b.png"],
        ["train_1_aligned.jpg", "train_2.jpg"],
        ["happy\\1.jpg", "sad\\1.jpg"],
        ["Doe, J.jpg", "a\tb.jpg"],
        ["./x/1.jpg", "x//2.jpg"],
    ],
)
def test_written_lists_find_their_samples(tmp_path, ids, names):
    clean = Listed(2)
    clean._ids = ids
    targets = torch.tensor([3, 0])
    write_noise_list(tmp_path / "noise.txt", ids, targets, names=names)
    noisy = with_noise_list(clean, tmp_path / "noise.txt", base=int(names == "plain"))
    assert torch.equal(noisy.targets, targets)


def test_a_name_twice_with_one_label_has_no_hint_at_an_option(tmp_path):
    with pytest.raises(
        ValueError, match="a second time, .* the rows are the same: delete one of them$"
    ):
        read_noise_list(written(tmp_path, "a.jpg 1\nb.jpg 7\nb.jpg 7\n"))


def test_what_is_no_data_set(tmp_path, faces):
    path = written(tmp_path, plain(NOISY.tolist()))
    with pytest.raises(TypeError, match="dataset must be one of robustfer's .* got Subset"):
        with_noise_list(torch.utils.data.Subset(faces, range(3)), path)


def test_labels_of_other_splits_must_stay(tmp_path, faces):
    test = RAFDB(tmp_path / "raf", "test")
    lines = plain(NOISY.tolist()) + "test_0001.jpg 4\ntest_0002.jpg {}\n"
    same = read_noise_list(written(tmp_path, lines.format(4)))
    assert verify_noise_list(same, faces, other_splits=[test]).problems == ()
    changed = read_noise_list(written(tmp_path, lines.format(5)))
    (problem,) = verify_noise_list(changed, faces, other_splits=[test]).problems
    assert "1 labels of images of other splits differ" in problem
    assert "'test_0002.jpg'" in problem
    (problem,) = verify_noise_list(changed, faces, other_splits=[]).problems
    assert "2 test images have no clean label to compare with" in problem
    # The other way round the names of the training images are strange.
    (problem,) = verify_noise_list(same, test).problems[:1]
    assert "30 names are not among the clean ones" in problem


def test_a_subset_takes_its_labels(tmp_path, faces):
    path = written(tmp_path, plain(NOISY.tolist()))
    rows = torch.tensor([7, 3, 21])
    assert torch.equal(with_noise_list(faces.subset(rows), path).targets, NOISY[rows])


def test_the_same_noise_has_the_same_fingerprint(tmp_path, faces):
    made = with_symmetric_noise(faces, rate=0.3, seed=1)
    assert torch.equal(made.targets, NOISY)
    mark = fingerprint(made.ids, made.targets, made.classes)
    moved = made.with_classes("fer2013").subset(list(range(29, -1, -1)))
    assert fingerprint(moved.ids, moved.targets, moved.classes) == mark
    other = with_symmetric_noise(faces, rate=0.3, seed=2)
    assert fingerprint(other.ids, other.targets, other.classes) != mark


def test_tabs_and_line_breaks_in_names_do_not_make_two_fingerprints_the_same():
    labels = [
        [("a\tb", "c")],
        [("a", "b\tc")],
        [("a", "b"), ("d", "c")],
        [("a\tb\nd", "c")],
        [("a", "b\nd\tc")],
        [("a\\tb", "c")],
        [('["a\\tb", "c"]', "")],
        [("", "a\tb\tc")],
        [("a\tb\tc", "")],
    ]
    marks = set()
    for pairs in labels:
        ids, classes = zip(*pairs, strict=True)
        marks.add(fingerprint(ids, torch.arange(len(ids)), classes))
    assert len(marks) == len(labels)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.jpg 0\nb.jpg 7\n", {}, "neither from 0 nor from 1: line 1 has 0, line 2 has 7"),
        ("a.jpg 1\nb.jpg 7\na.jpg 2\n", {}, "line 3: a.jpg is named a second time, after line 1"),
        ("a.jpg 1\nb.jpg 0\n", {"base": 1}, "line 2: a label must lie in 1 to 7, got 0"),
        ("a.jpg 1\nb.jpg 7\n", {"base": 0}, "line 2: a label must lie in 0 to 6, got 7"),
        ("a.jpg 1\n", {"base": 2}, "base must be a whole number from 0 to 1, got 2"),
        ("a.jpg 1\n", {"classes": "raf"}, "classes must be 'rafdb', "),
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
        ({"names": "long"}, "names must be 'plain' or 'aligned', got 'long'"),
        ({"base": 2}, "base must be a whole number from 0 to 1, got 2"),
        ({"base": True}, "base must be a whole number from 0 to 1, got True"),
        ({"base": 1.0}, "base must be a whole number from 0 to 1, got 1.0"),
        ({"targets": CLEAN[:3]}, "ids must name each of 3 samples, got 30 names"),
        ({"targets": CLEAN.float()}, "targets must be int64, got torch.float32"),
        ({"targets": CLEAN - 1, "base": 1}, r"targets must be 0 or more, got -1 for 'train_00001"),
        ({"ids": [*IDS[:29], "a,"]}, "'a,' cannot be written to a label list"),
        ({"ids": [*IDS[:29], "."]}, "'.' is not the name of a file"),
        ({"ids": [*IDS[:29], IDS[3]]}, "ids 'train_00004.jpg' and 'train_00004.jpg' are one name"),
        (
            {"ids": [*IDS[:29], "train_00004_aligned.jpg"]},
            "ids 'train_00004.jpg' and 'train_00004_aligned.jpg' are one name in a list",
        ),
        ({"ids": ["a/b.jpg", "a\\b.jpg"], "targets": CLEAN[:2]}, "are one name in a list"),
        ({"ids": ["", "b.jpg"], "targets": CLEAN[:2]}, "'' is not the name of a file"),
    ],
)
def test_bad_arguments_of_writing(tmp_path, options, message):
    arguments = {"ids": IDS, "targets": CLEAN} | options
    with pytest.raises(ValueError, match=message):
        write_noise_list(tmp_path / "noise.txt", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ids", [set(IDS), "a" * 30, dict.fromkeys(IDS), list(range(30)), iter(IDS)]
)
def test_ids_to_write_are_an_ordered_sequence_of_texts(tmp_path, ids):
    with pytest.raises(TypeError, match="ids must be"):
        write_noise_list(tmp_path / "noise.txt", ids, CLEAN)
    assert list(tmp_path.iterdir()) == []
