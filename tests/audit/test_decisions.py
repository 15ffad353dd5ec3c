import pytest
import torch

from robustfer.audit import read_decisions
from robustfer.noise import fingerprint, transition_from_verified
from robustfer.state import ChangeReason, LabelStore

CLASSES = ["happy", "sad", "fear"]
IDS = ["a.png", "=b.png", "c,d.png", '<img src=x onerror="alert(1)">', "e.png", "f.png"]
GIVEN = torch.tensor([0, 1, 2, 0, 1, 2])
MARK = fingerprint(IDS, GIVEN, CLASSES)


def write(path, *rows, mark=MARK):
    lines = ["audit,part,id,label"]
    for part, row, label in rows:
        name = IDS[row].replace('"', '""')
        lines.append(f'{mark},{part},"{"" if row != 1 else chr(39)}{name}",{label}')
    path.write_text("\n".join(lines))
    return path


def read(*paths, given=GIVEN):
    return read_decisions(list(paths), given, classes=CLASSES, ids=IDS)


def test_a_file_is_read(tmp_path):
    path = write(
        tmp_path / "a.csv",
        ("suspects", 3, "fear"),
        ("random", 1, "happy"),
        ("random", 2, "ambiguous"),
        ("duplicates", 0, "happy"),
    )
    found = read(path)
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.label.tolist() == [0, 0, -1, 2]
    assert found.given.tolist() == [0, 1, 2, 0]
    assert found.drawn_index.tolist() == [1, 2]
    assert found.drawn_label.tolist() == [0, -1]
    assert (found.stratified, found.fingerprint) == (False, MARK)
    one = read_decisions(path, GIVEN.numpy(), classes=CLASSES, ids=IDS)
    assert torch.equal(one.label, found.label)


def test_where_reviewers_disagree_the_face_is_ambiguous(tmp_path):
    one = write(
        tmp_path / "a.csv", ("random", 0, "sad"), ("random", 1, "sad"), ("random", 4, "fear")
    )
    other = write(
        tmp_path / "b.csv",
        ("random", 0, "sad"),
        ("random", 1, "happy"),
        ("suspects", 4, "ambiguous"),
    )
    found = read(one, other)
    assert found.index.tolist() == [0, 1, 4]
    assert found.label.tolist() == [1, -1, -1]
    # Blind, only the first of them looked at the last one.
    assert found.drawn_label.tolist() == [1, -1, 2]


def test_only_what_was_drawn_tells_how_labels_go_wrong(tmp_path):
    found = read(
        write(
            tmp_path / "a.csv", ("random", 0, "sad"), ("random", 1, "sad"), ("suspects", 3, "fear")
        )
    )
    expected = transition_from_verified([1, 1], [0, 1], num_classes=3)
    assert torch.equal(found.estimate().matrix, expected.matrix)
    only_suspects = read(write(tmp_path / "b.csv", ("suspects", 3, "fear")))
    with pytest.raises(ValueError, match="decisions must have samples of a random draw"):
        only_suspects.estimate()


def test_the_estimate_is_also_of_labels_that_a_network_learnt(tmp_path):
    found = read(
        write(
            tmp_path / "a.csv", ("random", 0, "sad"), ("random", 3, "fear"), ("suspects", 1, "sad")
        )
    )
    learnt = torch.rand(len(GIVEN), 3, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    expected = transition_from_verified([1, 2], GIVEN[[0, 3]], num_classes=3, learnt=learnt[[0, 3]])
    assert torch.equal(found.estimate(learnt=learnt).matrix, expected.matrix)
    with pytest.raises(ValueError, match=f"learnt must have shape .{len(GIVEN)}, 3"):
        found.estimate(learnt=learnt[1:])


def test_a_stratified_draw_is_weighted_by_the_data_set(tmp_path):
    rows = [("stratified", row, CLASSES[int(GIVEN[row])]) for row in range(3)]
    found = read(write(tmp_path / "a.csv", *rows))
    assert found.stratified
    expected = transition_from_verified(
        [0, 1, 2], [0, 1, 2], num_classes=3, given_counts=[2, 2, 2], level=0.9
    )
    assert torch.equal(found.estimate(level=0.9).matrix_low, expected.matrix_low)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (("random", 0, "sad"), {"mark": "abc"}, "line 2: .* fingerprint 'abc', expected"),
        (("maybe", 0, "sad"), {}, "line 2: part must be one of random, .* got 'maybe'"),
        (("random", 0, "joy"), {}, "line 2: label must be ambiguous or one of happy, .* got 'joy'"),
    ],
)
def test_a_row_that_is_refused(tmp_path, row, options, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "a.csv", row, **options))


def test_decisions_about_other_labels_are_refused(tmp_path):
    path = write(tmp_path / "a.csv", ("random", 0, "sad"))
    with pytest.raises(ValueError, match="read them with the data set, split and label noise"):
        read(path, given=GIVEN.flip(0))


def test_mistakes_of_a_table(tmp_path):
    path = tmp_path / "a.csv"
    for text, message in (
        (
            f"audit,part,id,label\n{MARK},random,x.png,sad",
            "line 2: id must be that of a sample, got 'x.png'",
        ),
        ("audit,part,id\n", "label missing"),
        (
            "audit,part,id,label\n" + 2 * f"{MARK},random,a.png,sad\n",
            "line 3: a.png .random. is named a second time",
        ),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read(path)
    with pytest.raises(ValueError, match="paths must have at least one file"):
        read()
    with pytest.raises(ValueError, match="ids .* are one name in a file of decisions; rename"):
        read_decisions(path, [0, 1], classes=CLASSES, ids=["a", "a"])


def test_decisions_change_labels_and_can_be_taken_back(tmp_path):
    store = LabelStore(GIVEN, num_classes=3)
    store.update(torch.tensor([5]), torch.tensor([0]), step=7, epoch=2)
    found = read(
        write(
            tmp_path / "a.csv",
            ("random", 0, "sad"),
            ("random", 1, "ambiguous"),
            ("suspects", 2, "fear"),
            ("suspects", 3, "fear"),
        )
    )
    assert store.apply_decisions(found) == 2
    assert store(torch.arange(6)).tolist() == [1, 1, 2, 2, 1, 0]
    journal = store.journal()
    assert journal["index"].tolist() == [5, 0, 3]
    assert journal["reason"].tolist()[1:] == [ChangeReason.MANUAL] * 2
    assert (journal["step"].tolist(), journal["epoch"].tolist()) == ([7] * 3, [2] * 3)
    assert store.apply_decisions(found, step=9, epoch=3) == 0
    assert store.revert(found.index) == 2
    assert store(torch.arange(6)).tolist() == [0, 1, 2, 0, 1, 0]


def test_decisions_about_another_store_change_nothing(tmp_path):
    found = read(write(tmp_path / "a.csv", ("random", 0, "sad"), ("suspects", 3, "fear")))
    store = LabelStore(GIVEN.flip(0), num_classes=3)
    with pytest.raises(ValueError, match="decisions must have the given labels.* at index 0"):
        store.apply_decisions(found)
    small = LabelStore(GIVEN[:2], num_classes=3)
    with pytest.raises(IndexError, match="index must hold rows from 0 to 1, got 3"):
        small.apply_decisions(found)
    assert not store.changed().any()
