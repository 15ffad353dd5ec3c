import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision.transforms import v2

from robustfer.data import DemoFaces, LabeledFaces
from robustfer.landmarks import DatasetLandmarks
from robustfer.noise import with_symmetric_noise
from robustfer.state import LabelStore


class Rows(LabeledFaces):
    """Images whose pixels are their row."""

    def load_image(self, row):
        return torch.full((3, 2, 2), row, dtype=torch.uint8)


def rows(targets=(0, 1, 2, 1), **options):
    ids = options.pop("ids", [f"row{row}" for row in range(len(targets))])
    return Rows(
        classes=options.pop("classes", ["a", "b", "c"]), ids=ids, targets=targets, **options
    )


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


def test_the_ids_of_a_subset_are_made_once():
    faces = rows().subset([3, 1, 2])
    assert faces.ids is faces.ids
    relabelled = faces.with_targets([0, 0, 0])
    assert relabelled.ids == faces.ids
    # A smaller subset has its own.
    assert faces.subset([1]).ids == ["row1"]
    assert relabelled.subset([0, 2]).ids == ["row3", "row2"]
    assert faces.ids == ["row3", "row1", "row2"]


def test_rows_asked_for_by_other_kinds_of_whole_numbers():
    faces = rows()
    for index in (torch.tensor(2), np.int64(2), torch.tensor([2], dtype=torch.int32)):
        assert faces[index]["index"] == 2
        assert type(faces[index]["index"]) is int
    for index in (1.0, "1", [1], slice(2), torch.tensor(1.0), torch.tensor([1, 2])):
        with pytest.raises(TypeError, match=r"index must be a whole number, got .* subset\(rows\)"):
            faces[index]


def test_torch_subsets_keep_the_rows_of_the_data_set():
    faces = rows()
    for chosen in ([3, 1], torch.tensor([3, 1]), np.array([3, 1])):
        part = Subset(faces, chosen)
        assert part[0]["index"] == 3
        batch = next(iter(DataLoader(part, batch_size=2)))
        assert batch["index"].tolist() == [3, 1]
        assert torch.equal(faces.targets[batch["index"]], batch["target"])


class Wrapped(Dataset):
    """What people write to transform samples."""

    def __init__(self, dataset, rows=None):
        self.dataset, self.rows = dataset, rows

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return dict(self.dataset[index if self.rows is None else self.rows[index]])


def concatenations():
    a, b = rows([0, 1, 2, 1]), rows([2, 0])
    yield ConcatDataset([a, b])
    yield a + b
    yield ConcatDataset([ConcatDataset([a]), b])
    yield ConcatDataset([a.subset([2, 0]), b.subset([1])])
    yield ConcatDataset([Wrapped(a), Wrapped(b)])
    yield Wrapped(ConcatDataset([a, a, b]))
    yield ConcatDataset([Subset(a, range(4)), ConcatDataset([b, Wrapped(a)])])


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("workers", [0, 2])
def test_index_counts_on_in_a_concatenation(number, workers):
    joined = list(concatenations())[number]
    targets = torch.tensor([int(joined[row]["target"]) for row in range(len(joined))])
    assert [joined[row]["index"] for row in range(len(joined))] == list(range(len(joined)))
    assert joined[-1]["index"] == len(joined) - 1
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        joined, batch_size=3, shuffle=True, num_workers=workers, generator=generator
    )
    store = LabelStore(targets, num_classes=3)
    for batch in loader:
        assert torch.equal(store(batch["index"]), batch["target"])


def test_subsets_of_a_concatenation_keep_its_rows():
    joined = ConcatDataset([rows([0, 1]), rows([2, 0, 1])])
    chosen = torch.tensor([4, 0, 2])
    batch = next(iter(DataLoader(Subset(joined, chosen), batch_size=3)))
    assert torch.equal(batch["index"], chosen)
    assert batch["target"].tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    "select", [lambda d: Subset(d, [3, 1]), lambda d: Wrapped(d, [3, 1, 2, 0])]
)
def test_a_selection_inside_a_concatenation_is_refused(select):
    joined = ConcatDataset([rows(), select(rows())])
    with pytest.raises(TypeError, match=r"torch's ConcatDataset .* concatenate dataset\.subset"):
        joined[4]


def test_nothing_handed_out_shares_memory_with_the_labels():
    given = {
        "targets": torch.tensor([0, 1, 2, 1]),
        "true_targets": torch.tensor([0, 0, 0, 2]),
        "votes": torch.ones(4, 3).long(),
    }
    before = {name: values.clone() for name, values in given.items()}
    faces = rows(**given)
    soft = rows(torch.eye(3))
    noisy = torch.tensor([2, 2, 2, 2])
    other = faces.with_targets(noisy)
    for values in (*given.values(), noisy):
        values.zero_()
    for row in range(4):
        faces[row]["target"].fill_(2)
        faces.subset([row])[0]["target"].fill_(2)
    soft[0]["target"].fill_(1)
    assert all(torch.equal(getattr(faces, name), values) for name, values in before.items())
    assert torch.equal(soft.targets, torch.eye(3))
    assert other.targets.tolist() == [2, 2, 2, 2]
    unknown = rows().with_targets([2, 2, 2, 2])
    faces.targets.zero_()
    assert unknown.true_targets.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(
    "labels",
    [
        [2, 0, 1, 1],
        (2, 0, 1, 1),
        np.array([2, 0, 1, 1], dtype=np.int32),
        np.array([1, 1, 0, 2])[::-1],
        np.array([2, 0, 1, 1], dtype=">i8"),
        torch.tensor([2, 0, 1, 1], dtype=torch.uint8),
        np.array([2, 0, 1, 1], dtype=np.uint64),
    ],
    ids=str,
)
def test_labels_as_numpy_and_lists_have_them(labels):
    for faces in (rows(labels), rows().with_targets(labels)):
        assert faces.targets.dtype == torch.int64
        assert faces.targets.tolist() == [2, 0, 1, 1]
    order = np.argsort([3.0, 1.0, 2.0])[::-1]
    assert rows().subset(order).ids == ["row0", "row2", "row1"]
    soft = rows().with_targets(np.eye(4, 3, k=0)[::-1][1:].repeat([1, 1, 2], axis=0))
    assert soft.targets.dtype == torch.float32
    assert soft.targets.argmax(dim=1).tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize("labels", [["sad"] * 4, [[0], [1, 2], [0], [0]], {0, 1}, None])
def test_labels_that_are_no_numbers(labels):
    with pytest.raises(TypeError, match=r"targets must be a torch\.Tensor, a numpy array or"):
        rows().with_targets(labels)


def test_other_targets_keep_the_first_ones_as_true():
    faces = rows()
    other = faces.with_targets(torch.zeros(4, dtype=torch.int64))
    again = other.with_targets(torch.ones(4, dtype=torch.int64))
    assert faces.true_targets is None
    assert torch.equal(again.true_targets, faces.targets)


def test_the_true_labels_are_no_part_of_a_batch():
    batch = next(iter(DataLoader(rows(true_targets=torch.tensor([2, 2, 2, 2])), batch_size=4)))
    assert sorted(batch) == ["id", "image", "index", "target"]
    assert batch["target"].tolist() == [0, 1, 2, 1]


VOTES = torch.arange(12).reshape(4, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_votes_come_in_a_batch_with_their_image(workers):
    for faces in (
        rows(votes=VOTES),
        rows(votes=VOTES).subset([3, 1, 0]),
        with_symmetric_noise(rows(votes=VOTES), rate=0.5, seed=0),
        rows(votes=VOTES).with_targets(torch.eye(3)[[0, 1, 1, 2]]),
        rows(votes=VOTES).with_transform(lambda image: image.float()),
        Subset(rows(votes=VOTES), [2, 0]),
        ConcatDataset([rows(votes=VOTES), rows(votes=VOTES)]),
    ):
        [batch] = DataLoader(faces, batch_size=8, num_workers=workers)
        assert torch.equal(batch["votes"], VOTES[batch["image"][:, 0, 0, 0].long()])
    turned = rows(votes=VOTES).with_classes(["c", "a", "b"])
    assert turned[1]["votes"].tolist() == [5, 3, 4]


def test_votes_handed_out_share_no_memory():
    faces = rows(votes=VOTES)
    faces[1]["votes"].zero_()
    assert torch.equal(faces.votes, VOTES)


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
    with pytest.raises(ValueError, match=r"labels c are not among the new classes \['b', 'a'\]"):
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
        ([], "at least one row, and each row once"),
        ([1, 1], "at least one row, and each row once"),
        (torch.tensor([[1]]), "at least one row"),
        ([4], r"index must lie in \[0, 3\], got 4 at position 0"),
        ([-1], r"index must lie in \[0, 3\], got -1 at position 0"),
        (torch.tensor([False, True]), "row numbers, got torch.bool"),
        (torch.tensor([True, False, True, True]), "row numbers, got torch.bool"),
        ([0.5], "row numbers, got torch.float64"),
    ],
)
def test_bad_subsets(index, message):
    with pytest.raises(ValueError, match=message):
        rows().subset(index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": [0, 3]}, "targets must hold class indices from 0 to 2, got 3 at position 1"),
        ({"targets": [0.5, 0.5]}, "targets must hold whole numbers, got .*float64"),
        ({"targets": torch.ones(2, 2)}, r"targets must have shape \(2, 3\), got \(2, 2\)"),
        ({"targets": torch.eye(3)[:2] * 2}, "rows of targets must be probabilities"),
        ({"targets": torch.eye(3, dtype=torch.int64)}, "targets must have a floating-point dtype"),
        ({"true_targets": torch.tensor([0])}, r"true_targets must have shape \(4\)"),
        ({"targets": [True, False]}, "targets must hold whole numbers, got .*bool"),
        ({"votes": torch.zeros(4, 2)}, r"votes must have shape \(4, 3\), got \(4, 2\)"),
        ({"votes": torch.ones(4, 3)}, "votes must be int64, got torch.float32"),
        ({"votes": -torch.ones(4, 3).long()}, r"votes must lie in \[0, inf\), got -1"),
        ({"ids": ["a", "b", "\udcc0", "c"]}, r"UTF-8 can encode, got '\\udcc0'.* Rename the file"),
        ({"ids": ["a", "b", "a", "c"]}, "ids must have each name once, got 'a' 2 times"),
        ({"classes": "abc"}, "classes must be a list of names in order, got 'abc'"),
        ({"classes": {"a", "b", "c"}}, "classes must be a list of names in order, got set"),
        ({"classes": ["a", "b", "a"]}, "classes must have each name once, got 'a' 2 times"),
        ({"classes": [0, 1, 2]}, "classes must be texts, got 0 at position 0"),
        ({"targets": torch.zeros(0, dtype=torch.int64)}, "ids must have at least one name"),
    ],
)
def test_bad_labels(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        rows(**options)


# Parts


def uneven(sizes=(20, 7, 3), **options):
    """As many samples of each class, mixed."""
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
    return rows(labels[order], **options)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.9])
def test_a_split_has_its_share_of_every_class(share):
    faces = uneven()
    first, second = faces.split(share, seed=0)
    assert len(first) == round(share * len(faces))
    assert sorted([*first.ids, *second.ids]) == sorted(faces.ids)
    for label, size in enumerate((20, 7, 3)):
        assert abs(int((first.targets == label).sum()) - share * size) < 1
    for part in (first, second):
        assert [part[row]["index"] for row in range(len(part))] == list(range(len(part)))
        places = [faces.ids.index(name) for name in part.ids]
        assert places == sorted(places)
        assert torch.equal(part.targets, faces.targets[places])


def test_a_split_depends_on_seed_and_names_only():
    faces = uneven()
    first = set(faces.split(0.5, seed=0)[0].ids)
    assert first == set(faces.split(0.5, seed=0)[0].ids)
    assert first == set(faces.subset(range(29, -1, -1)).split(0.5, seed=0)[0].ids)
    others = [set(faces.split(0.5, seed=seed)[0].ids) for seed in range(1, 20)]
    assert len({frozenset(other) for other in others}) > 15
    assert all(first != other for other in others)


def test_a_split_keeps_what_belongs_to_the_rows():
    faces = uneven(true_targets=[0] * 30, votes=torch.arange(90).reshape(30, 3))
    for part in faces.split(0.4, seed=5):
        places = [faces.ids.index(name) for name in part.ids]
        assert torch.equal(part.votes, faces.votes[places])
        assert [int(part[row]["image"].max()) for row in range(len(part))] == places
        assert part.split(0.5, seed=0)[1].ids[-1] in faces.ids
    soft = rows(torch.eye(3)[faces.targets])
    assert soft.split(0.4, seed=5)[0].ids == faces.split(0.4, seed=5)[0].ids


def test_a_split_has_nothing_to_do_with_the_noise_of_the_same_seed():
    faces = uneven((700, 700, 700))
    noisy = with_symmetric_noise(faces, rate=0.5, seed=0)
    chosen = set(faces.split(0.5, seed=0)[0].ids)
    wrong = {noisy.ids[row] for row in (noisy.targets != faces.targets).nonzero()[:, 0].tolist()}
    assert 450 < len(chosen & wrong) < 600  # 525 by chance


@pytest.mark.parametrize(
    ("share", "seed", "message"),
    [
        (0, 0, r"share must lie in \(0, 1\), got 0"),
        (1.0, 0, r"share must lie in \(0, 1\), got 1.0"),
        (0.01, 0, "share must leave a sample in both parts, got 0.01 of 4"),
        (0.99, 0, "share must leave a sample in both parts"),
        (0.5, 1.5, "seed must be a whole number, got 1.5"),
    ],
)
def test_bad_splits(share, seed, message):
    with pytest.raises(ValueError, match=message):
        rows().split(share, seed=seed)


# Transforms


def bright(image):
    return image.float() + 0.5


def test_a_transform_sees_the_image_each_time_it_is_loaded():
    faces = rows().with_transform(bright)
    assert faces[2]["image"].unique().tolist() == [2.5]
    assert faces.subset([3]).with_targets([0])[0]["image"].unique().tolist() == [3.5]
    assert faces.with_transform(None)[2]["image"].dtype == torch.uint8
    assert rows()[2]["image"].dtype == torch.uint8
    batch = next(iter(DataLoader(faces, batch_size=4, num_workers=2)))
    assert batch["image"][:, 0, 0, 0].tolist() == [0.5, 1.5, 2.5, 3.5]


def test_transforms_of_torchvision():
    crop = v2.Compose([v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)])
    image = DemoFaces(7).with_transform(crop)[0]["image"]
    torch.testing.assert_close(image, DemoFaces(7)[0]["image"][:, 8:40, 8:40].float() / 255)


def test_a_transform_moves_no_landmarks():
    faces = DemoFaces(7).with_transform(bright)
    for ask in (faces.landmarks, lambda _: DatasetLandmarks(faces)):
        with pytest.raises(ValueError, match=r"before the transform.* with_transform\(None\)"):
            ask(0)
    assert torch.equal(faces.with_transform(None).landmarks(0), DemoFaces(7).landmarks(0))
    with pytest.raises(ValueError, match="Rows has no landmarks"):
        rows().landmarks(0)
    with pytest.raises(TypeError, match="transform must be a function of an image, got 3"):
        rows().with_transform(3)
