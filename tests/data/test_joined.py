import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

from robustfer.data import DemoFaces, ImageFolder, JoinedFaces
from robustfer.noise import noise_report, with_symmetric_noise
from robustfer.state import LabelStore
from tests.data.trees import write_image


def joined():
    other = DemoFaces(14, seed=1).subset([9, 3, 12])
    return JoinedFaces([DemoFaces(7), other]), DemoFaces(7), other


def test_rows_count_on_from_part_to_part():
    faces, first, second = joined()
    assert len(faces) == 10
    assert faces.ids == [*first.ids, *second.ids] == faces.all_ids
    assert torch.equal(faces.targets, torch.cat([first.targets, second.targets]))
    for row in range(10):
        part, place = (first, row) if row < 7 else (second, row - 7)
        assert torch.equal(faces[row]["image"], part[place]["image"])
        assert (faces[row]["index"], faces[row]["id"]) == (row, part.ids[place])
    assert torch.equal(faces.landmarks(8), DemoFaces(14, seed=1).landmarks(3))
    assert faces[-1]["index"] == 9


@pytest.mark.parametrize("workers", [0, 2])
def test_noise_and_labels_cover_all_rows(workers):
    faces = with_symmetric_noise(joined()[0], rate=0.4, seed=0)
    assert noise_report(faces).rate == pytest.approx(0.4)
    store = LabelStore(faces.targets, num_classes=7)
    seen = []
    for batch in DataLoader(faces, batch_size=4, shuffle=True, num_workers=workers):
        assert torch.equal(store(batch["index"]), batch["target"])
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(10))


def test_parts_of_it_and_in_it():
    faces, first, second = joined()
    part = faces.subset([8, 0])
    assert part.ids == [second.ids[1], first.ids[0]]
    assert torch.equal(part[0]["image"], second[1]["image"])
    again = JoinedFaces([part, DemoFaces(7, seed=2)])
    assert torch.equal(again[0]["image"], second[1]["image"])
    assert torch.equal(again.landmarks(0), DemoFaces(14, seed=1).landmarks(3))
    concatenated = ConcatDataset([faces, DemoFaces(7)])
    assert concatenated[12]["index"] == 12


def test_better_labels_and_votes_are_kept_if_all_parts_have_them():
    clean = DemoFaces(7)
    noisy = with_symmetric_noise(DemoFaces(7, seed=1), rate=0.5, seed=0)
    assert JoinedFaces([clean, noisy]).true_targets is None
    both = JoinedFaces([with_symmetric_noise(clean, rate=0.5, seed=0), noisy])
    assert torch.equal(both.true_targets, torch.cat([clean.targets, noisy.true_targets]))
    assert both.votes is None
    assert "votes" not in both[0]
    voted = JoinedFaces([DemoFaces(7, voters=3), noisy, DemoFaces(7, voters=2, seed=2)])
    assert voted.votes is None
    voted = JoinedFaces([DemoFaces(7, voters=3), DemoFaces(7, voters=2, seed=2)])
    assert [int(voted[row]["votes"].sum()) for row in (0, 6, 7, 13)] == [3, 3, 2, 2]


def test_what_the_readers_left_out_is_added_up():
    one, two = DemoFaces(7), DemoFaces(7, seed=1)
    one.excluded, two.excluded = {"hidden": 1}, {"hidden": 2, "blurred": 1}
    assert JoinedFaces([one, two]).excluded == {"hidden": 3, "blurred": 1}


def test_names_keep_ids_apart(tmp_path):
    for folder, grey in (("old", 1), ("new", 2)):
        write_image(tmp_path / folder / "happiness" / "1.png", grey=grey)
    old, new = (ImageFolder(tmp_path / folder) for folder in ("old", "new"))
    with pytest.raises(ValueError, match=r"must not share ids, got 'happiness/1.png'.* name the"):
        JoinedFaces([old, new])
    faces = JoinedFaces({"old": old, "new": new})
    assert faces.ids == ["old/happiness/1.png", "new/happiness/1.png"]
    assert [int(faces[row]["image"].max()) for row in (0, 1)] == [1, 2]


def test_a_part_keeps_its_transform_and_the_whole_has_one_of_its_own():
    half = DemoFaces(7).with_transform(lambda image: image // 2)
    faces = JoinedFaces([half, DemoFaces(7, seed=1)])
    assert torch.equal(faces[0]["image"], DemoFaces(7)[0]["image"] // 2)
    assert torch.equal(faces[7]["image"], DemoFaces(7, seed=1)[0]["image"])
    with pytest.raises(ValueError, match="before the transform"):
        faces.landmarks(0)
    assert faces.landmarks(7).shape == (68, 2)
    whole = faces.with_transform(lambda image: image.float())
    assert whole[0]["image"].dtype == torch.float32


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        (lambda: [], ValueError, "parts must be at least one data set, got none"),
        (lambda: [DemoFaces(7), [1]], TypeError, "one of robustfer's data sets, got list"),
        (
            lambda: {"a": DemoFaces(7), "b": DemoFaces(7, seed=1).with_classes("fer2013")},
            ValueError,
            r"same classes, got .*'surprise'.* in part 'a' and .*'anger'.* in part 'b'; .*_classes",
        ),
        (
            lambda: [DemoFaces(7), DemoFaces(7, seed=1).with_targets(torch.eye(7))],
            ValueError,
            "same kind of labels, got classes in part 0 and probabilities in part 1",
        ),
        (
            lambda: [DemoFaces(7), DemoFaces(7, seed=1, size=32)],
            ValueError,
            r"same shape of images, got .*48, 48.* in part 0 and .*32, 32.* in part 1; .*one size",
        ),
    ],
)
def test_parts_that_do_not_fit(parts, error, message):
    with pytest.raises(error, match=message):
        JoinedFaces(parts())
