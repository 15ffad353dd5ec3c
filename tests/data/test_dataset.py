import pytest
import torch
from torch.utils.data import DataLoader

from robustfer.data import LabeledFaces


class Rows(LabeledFaces):
    """Images whose pixels are their row."""

    def load_image(self, row):
        return torch.full((3, 2, 2), row, dtype=torch.uint8)


def rows(targets=(0, 1, 2, 1), **options):
    targets = torch.as_tensor(targets)
    ids = options.pop("ids", [f"row{row}" for row in range(len(targets))])
    return Rows(classes=["a", "b", "c"], ids=ids, targets=targets, **options)


def test_samples():
    faces = rows()
    assert len(faces) == 4
    assert faces[-1]["index"] == 3
    assert int(faces[3]["image"].max()) == 3
    assert sorted(faces[0]) == ["id", "image", "index", "target"]
    assert faces[1]["id"] == "row1"
    with pytest.raises(IndexError, match="index 4 is outside a data set of 4 samples"):
        faces[4]


def test_subset_of_a_subset_numbers_its_rows_anew():
    faces = rows(true_targets=torch.tensor([0, 0, 0, 2])).subset([3, 1, 2]).subset([2, 0])
    assert faces.ids == ["row2", "row3"]
    assert faces.all_ids == ["row0", "row1", "row2", "row3"]
    assert faces.targets.tolist() == [2, 1]
    assert faces.true_targets.tolist() == [0, 2]
    assert int(faces[0]["image"].max()) == 2
    assert faces[0]["index"] == 0


def test_other_targets_keep_the_first_ones_as_true():
    faces = rows()
    other = faces.with_targets(torch.zeros(4, dtype=torch.int64))
    again = other.with_targets(torch.ones(4, dtype=torch.int64))
    assert faces.true_targets is None
    assert torch.equal(again.true_targets, faces.targets)


def test_the_true_labels_and_the_votes_are_no_part_of_a_batch():
    faces = rows(true_targets=torch.tensor([2, 2, 2, 2]), votes=torch.ones(4, 3).long())
    batch = next(iter(DataLoader(faces, batch_size=4)))
    assert sorted(batch) == ["id", "image", "index", "target"]
    assert batch["target"].tolist() == [0, 1, 2, 1]


def test_another_order_of_the_classes():
    votes = torch.tensor([[9, 1, 0], [0, 7, 3], [1, 1, 8], [2, 8, 0]])
    faces = rows(true_targets=torch.tensor([0, 0, 2, 1]), votes=votes)
    other = faces.with_classes(["c", "a", "b", "d"])
    assert other.classes == ("c", "a", "b", "d")
    assert [other.classes[t] for t in other.targets] == [faces.classes[t] for t in faces.targets]
    assert other.true_targets.tolist() == [1, 1, 0, 2]
    assert other.votes[1].tolist() == [3, 0, 7, 0]
    assert other.ids == faces.ids
    assert faces.classes == ("a", "b", "c")
    back = other.with_classes(["a", "b", "c"])
    assert torch.equal(back.targets, faces.targets)
    assert torch.equal(back.votes, votes)

    two = faces.subset([1, 3]).with_classes(["b", "a"])
    assert two.targets.tolist() == [0, 0]
    assert two.votes.tolist() == [[7, 0], [8, 2]]
    with pytest.raises(ValueError, match=r"labels c have no place among \['b', 'a'\]"):
        faces.with_classes(["b", "a"])
    soft = rows(torch.eye(3)).with_classes(["c", "b", "a"])
    assert torch.equal(soft.targets, torch.eye(3).flip(1))


def test_summary():
    faces = rows(true_targets=torch.tensor([0, 0, 0, 1]), excluded={"blurred": 3, "twice": 1})
    assert faces.summary() == (
        "4 images: a 1, b 2, c 1\n"
        "left out: 3 blurred, 1 twice\n"
        "2 labels (50.0%) differ from the true ones"
    )
    soft = rows(torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]))
    assert soft.summary() == "2 images: a 1, b 0, c 0\nleft out: nothing"


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "at least one row and none twice"),
        ([1, 1], "at least one row and none twice"),
        (torch.tensor([[1]]), "at least one row"),
        ([4], "rows from 0 to 3, got 4 to 4"),
        ([-1], "rows from 0 to 3, got -1 to -1"),
        (torch.tensor([False, True]), "row numbers, got torch.bool"),
        (torch.tensor([True, False, True, True]), "row numbers, got torch.bool"),
        ([0.5], "row numbers, got torch.float32"),
    ],
)
def test_bad_subsets(index, message):
    with pytest.raises(ValueError, match=message):
        rows().subset(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": [0, 3]}, "targets must hold class indices from 0 to 2, got 3 at position 1"),
        ({"targets": [0.5, 0.5]}, r"targets must be int64 of shape \(2\), got torch.float32"),
        ({"targets": torch.ones(2, 2)}, r"targets must have shape \(2, 3\), got \(2, 2\)"),
        ({"targets": torch.eye(3)[:2] * 2}, "rows of targets must be probabilities"),
        ({"targets": torch.eye(3, dtype=torch.int64)}, "targets must have a floating-point dtype"),
        ({"true_targets": torch.tensor([0])}, r"true_targets must be int64 of shape \(4\)"),
        ({"votes": torch.zeros(4, 2)}, r"votes must have shape \(4, 3\), got \(4, 2\)"),
        ({"ids": ["a", "b", "a", "c"]}, "ids must name each sample once, got 'a' 2 times"),
        ({"targets": torch.zeros(0, dtype=torch.int64)}, "ids must name at least one sample"),
    ],
)
def test_bad_labels(options, message):
    with pytest.raises(ValueError, match=message):
        rows(**options)
