"""Data as users have it: noise of every kind, lists in circulation, weights, orders, places."""

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.data import (
    Images,
    Order,
    class_weights,
    load_faces,
    read_faces_to_judge,
    with_noise,
)
from examples.train.options import DataOptions, NoiseOptions, Refused
from robustfer.data import DemoFaces, load
from robustfer.data.classes import class_order
from robustfer.noise import (
    with_class_noise,
    with_symmetric_noise,
    write_noise_list,
)
from tests.data.trees import vote_row, write_ferplus, write_rafdb
from tests.examples.train.runs import run, settings_of

CPU = torch.device("cpu")


def loaded(*options, data="--data=demo"):
    return load_faces(settings_of("ce", "--noise=none", data, *options))


def test_what_is_asked_for_is_read():
    options = ["--evaluate-on=validation", "--evaluate-reader.num_samples=9"]
    train, judged = loaded("--reader.num_samples=20", "--reader.classes=fer2013", *options)
    assert (len(train), len(judged)) == (20, 9)
    assert train.ids[0].startswith("demo-train")
    assert judged.ids[0].startswith("demo-validation")
    assert train.classes == judged.classes == DemoFaces(7).with_classes("fer2013").classes


@pytest.mark.parametrize("variant", ["exact", "bernoulli", "official"])
@pytest.mark.parametrize("seed", [[], ["--noise-seed=4"]])
def test_noise_is_the_librarys_with_a_seed_of_its_own(variant, seed):
    common = ["--reader.num_samples=70", "--seed=9", "--noise-rate=0.3",
              f"--noise-variant={variant}", *seed]  # fmt: skip
    expected_seed = 4 if seed else 9
    faces = DemoFaces(70, size=32)
    made, _ = loaded("--noise=symmetric", *common)
    expected = with_symmetric_noise(faces, rate=0.3, seed=expected_seed, variant=variant)
    assert torch.equal(made.targets, expected.targets)
    assert torch.equal(made.true_targets, faces.targets)
    made, _ = loaded("--noise=lanet", *common)
    expected = with_class_noise(faces, "lanet", rate=0.3, seed=expected_seed, variant=variant)
    assert torch.equal(made.targets, expected.targets)


def test_noise_by_confusions_of_ones_own_and_with_the_true_class():
    made, _ = loaded("--reader.num_samples=70", "--noise=confusions", "--noise-rate=1",
                     "--noise-confusions={fear: surprise, anger: {disgust: 0.5}}")  # fmt: skip
    names = made.classes
    before, after = (
        np.array([names[label] for label in labels]) for labels in (made.true_targets, made.targets)
    )
    assert set(after[before == "fear"]) == {"surprise"}
    assert set(after[before == "anger"]) == {"anger", "disgust"}
    assert (after[before == "sadness"] == "sadness").all()
    made, _ = loaded("--reader.num_samples=70", "--noise=symmetric-included", "--noise-rate=1")
    faces = DemoFaces(70, size=32)
    expected = with_symmetric_noise(faces, rate=1.0, seed=0, true_class="included")
    assert torch.equal(made.targets, expected.targets)


def rafdb(root):
    """RAF-DB's own tree: labels from 1, aligned copies of the images."""
    lines = [f"train_{n:05d}.jpg {1 + n % 7}" for n in range(28)]
    lines += [f"test_{n:04d}.jpg {1 + n % 7}" for n in range(14)]
    return write_rafdb(root / "rafdb", lines)


@pytest.mark.parametrize("names", ["plain", "aligned"])
def test_lists_of_rafdb_run_from_the_command_line(names, tmp_path):
    """As EAC's lists have it, from 1 and with plain names; and as SCN's, from 0 and aligned."""
    root = rafdb(tmp_path)
    clean, _ = loaded("--reader={}", data=f"--data=rafdb:{root}")
    order = [clean.classes.index(name) for name in class_order("rafdb")]
    noisy = with_symmetric_noise(clean, rate=0.3, seed=5).targets
    numbers = torch.tensor([order.index(int(label)) for label in noisy])
    write_noise_list(tmp_path / "list.txt", list(clean.ids), numbers, names=names)
    outcome = run(
        "ce", f"--data=rafdb:{root}", "--reader={size: 32}", "--noise=list", "--noise-rate=null",
        "--batch-size=8", f"--noise-list={tmp_path}/list.txt", "--noise-numbering=rafdb",
        "--epochs=1", f"--output={tmp_path}/run",
    )  # fmt: skip
    assert outcome.history.last["accuracy"] >= 0
    made, judged = load_faces(settings_of(
        "ce", f"--data=rafdb:{root}", "--reader={}", "--noise=list", "--noise-rate=null",
        f"--noise-list={tmp_path}/list.txt",
    ))  # fmt: skip
    assert torch.equal(made.targets, noisy)
    assert torch.equal(made.true_targets, clean.targets)
    assert len(judged) == 14


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_list": "a.txt"}, "--noise-list needs a kind of noise; add --noise list, or"),
        ({"noise_rate": 0.3}, "--noise-rate needs a kind of noise; add --noise symmetric, or"),
        (
            {"noise": "list", "noise_list": "a", "noise_rate": 0.1},
            "list does not read --noise-rate",
        ),
        (
            {"noise": "lanet", "noise_rate": 0.1, "noise_base": 0},
            "lanet does not read --noise-base",
        ),
        (
            {"noise": "symmetric", "noise_rate": 0.1, "noise_confusions": {"fear": "sad"}},
            "symmetric does not read --noise-confusions.*remove it",
        ),
        ({"noise_seed": 5}, "--noise-seed needs a kind of noise; add --noise symmetric"),
        ({"noise_variant": "bernoulli"}, "--noise-variant needs a kind of noise"),
        (
            {"noise": "list", "noise_list": "a.txt", "noise_seed": 5},
            "list does not read --noise-seed, got 5.*null against a config file",
        ),
        (
            {"noise": "list", "noise_list": "a.txt", "noise_variant": "official"},
            "list does not read --noise-variant.*--noise-variant exact against a config file",
        ),
    ],
)
def test_noise_options_that_nothing_reads_are_refused(options, message):
    with pytest.raises(Refused, match=message):
        with_noise(DemoFaces(14, size=16), NoiseOptions(**options), seed=0)


def test_no_noise_is_possible_against_a_config_file():
    faces = DemoFaces(14, size=16)
    assert with_noise(faces, NoiseOptions(noise="none", noise_rate=0.3), seed=0) is faces
    assert with_noise(faces, NoiseOptions(), seed=0) is faces


def test_options_of_a_reader_are_not_for_one_of_another_kind(tmp_path):
    for number, name in enumerate(DemoFaces(14).classes):
        (tmp_path / name).mkdir()
        Image.new("L", (16, 16)).save(tmp_path / name / f"{number}.png")
    options = {"data": "demo", "evaluate_data": f"folder:{tmp_path}"}
    options |= {"reader": {"voters": 10, "size": 20}, "evaluate_reader": {"split": "all"}}
    judged = read_faces_to_judge(DataOptions(**options))
    assert judged[0]["image"].shape == (3, 20, 20)


def test_votes_of_a_crowd(tmp_path):
    rows = [vote_row(f"fer{n:04d}.png", happiness=7, neutral=3) for n in range(30)]
    rows += [vote_row(f"val{n}.png", usage="PublicTest", happiness=9) for n in range(3)]
    data = f"--data=ferplus:{write_ferplus(tmp_path / 'faces', rows)}"
    options = ["--reader={}", "--evaluate-on=validation"]
    made, _ = loaded("--noise=crowd", "--noise-rate=0.5", *options, data=data)
    wrong = made.targets[made.targets != made.true_targets]
    assert len(wrong) == 15
    assert {made.classes[label] for label in wrong} == {"neutral"}
    # What a label is may differ between training and evaluation.
    soft, judged = loaded(*options[1:], "--reader={labels: crossentropy}", data=data)
    assert (soft.targets.ndim, judged.targets.ndim) == (2, 1)


def test_probabilities_as_labels_train(tmp_path):
    rows = [vote_row(f"fer{n:04d}.png", happiness=6, neutral=4) for n in range(20)]
    rows += [vote_row(f"val{n}.png", usage="PublicTest", happiness=9) for n in range(3)]
    data = f"--data=ferplus:{write_ferplus(tmp_path / 'faces', rows)}"
    for method in ("ce", "eac", "scn", "compose"):
        outcome = run(
            method, data, "--reader={labels: crossentropy, size: 32}", "--noise=none",
            "--evaluate-on=validation", "--epochs=1", f"--output={tmp_path}/{method}",
        )  # fmt: skip
        assert outcome.history.last["loss"] > 0
    with pytest.raises(Refused, match="probabilities as labels, expected one class per image"):
        run("lanet", data, "--reader={labels: crossentropy, size: 32}", "--noise=none",
            "--evaluate-on=validation")  # fmt: skip


def test_class_weights_are_1_on_average_and_larger_for_rare_classes():
    faces = DemoFaces(70).subset(
        [*range(35), *(r for r in range(35, 70) if DemoFaces(70).targets[r] == 3)]
    )
    weights = class_weights(faces, DataOptions(class_weights="balanced"))
    counts = faces.targets.bincount(minlength=7)
    assert counts[3] > counts[0]
    torch.testing.assert_close(weights * counts, torch.full((7,), len(faces) / 7))
    assert float(weights[faces.targets].mean()) == pytest.approx(1.0)
    own = class_weights(faces, DataOptions(class_weights=[1.0, 1, 1, 2, 1, 1, 1]))
    assert float(own[3] / own[0]) == pytest.approx(2.0)
    assert class_weights(faces, DataOptions()) is None


def test_an_epoch_has_every_row_once_in_an_order_of_its_own():
    labels = torch.arange(50) % 7
    order = Order(DataOptions(), lambda: labels, num_classes=7, epochs=3, seed=1)
    first, second = order(1), order(2)
    assert sorted(first.tolist()) == sorted(second.tolist()) == [*range(50)]
    assert not torch.equal(first, second)
    assert torch.equal(
        first, Order(DataOptions(), lambda: labels, num_classes=7, epochs=9, seed=1)(1)
    )
    assert not torch.equal(
        first, Order(DataOptions(), lambda: labels, num_classes=7, epochs=3, seed=2)(1)
    )


def test_a_class_may_get_its_first_face_by_relabelling():
    labels = torch.arange(12) % 6
    for sampling in ("balanced", "progressive"):
        options = DataOptions(sampling=sampling)
        order = Order(options, labels.clone, num_classes=7, epochs=4, seed=1)
        before = order(1)
        labels[0] = 6
        assert len(before) == len(order(2)) == 12
        labels[0] = 0


@pytest.mark.parametrize("keep", ["memory", "files"])
@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_images_are_named_in_one_line(tmp_path, keep, workers):
    (tmp_path / "sad").mkdir()
    for name in ("a", "b", "c", "d"):
        Image.new("L", (16, 16)).save(tmp_path / "sad" / f"{name}.png")
    faces = load(f"folder:{tmp_path}", split=None)

    def read():
        images = Images(faces, DataOptions(keep=keep, workers=workers), CPU)
        return list(images.batches([torch.arange(4)]))

    def message():
        with pytest.raises(Refused, match=r"b\.png") as raised:
            read()
        return str(raised.value)

    (tmp_path / "sad" / "b.png").write_bytes(b"no picture")
    start = f"{tmp_path}/sad/b.png cannot be read as an image: it is damaged"
    one = message()
    assert one.startswith(start)
    assert one.endswith("; remove or replace it")
    (tmp_path / "sad" / "d.png").write_bytes(b"")
    two = message()
    assert two.startswith(start)
    expected = "; 2 of 4 images cannot be read, remove or replace them: sad/b.png, sad/d.png"
    assert two.endswith(expected)
    assert "\n" not in one + two


def test_balanced_orders_draw_the_classes_alike():
    labels = torch.tensor([0] * 60 + [1] * 20 + [2] * 10)
    order = Order(DataOptions(sampling="balanced"), lambda: labels, num_classes=7, epochs=4, seed=1)
    for epoch in (1, 2, 3, 4):
        assert labels[order(epoch)].bincount().tolist() == [30, 30, 30]
    assert not torch.equal(order(1), order(2))
    order = Order(
        DataOptions(sampling="progressive"), lambda: labels, num_classes=7, epochs=4, seed=1
    )
    shares = [labels[order(epoch)].bincount().tolist() for epoch in (1, 2, 3, 4)]
    assert shares[0] == [60, 20, 10]
    assert shares[-1] == [30, 30, 30]
    assert shares[0][2] < shares[1][2] < shares[2][2] < shares[3][2]


@pytest.mark.parametrize("options", [
    {"keep": "memory"}, {"keep": "memory", "workers": 2}, {"keep": "files"},
    {"keep": "files", "workers": 2}, {"keep": "device"}, {"memory_limit": 1e-9}, {},
])  # fmt: skip
def test_images_are_the_data_sets_wherever_they_are_kept(options):
    faces = DemoFaces(30, size=16)
    images = Images(faces, DataOptions(**options), CPU)
    assert (images.kept is None) == (options.get("keep") == "files" or "memory_limit" in options)
    # Who chose the files knows that they are slow.
    assert (images.advice is not None) == ("memory_limit" in options)
    rows = [torch.tensor([3, 29, 0]), torch.tensor([7, 7])]
    for _ in range(2):
        for part, found in zip(rows, images.batches(rows), strict=True):
            expected = torch.stack([faces[int(row)]["image"] for row in part])
            assert found.dtype == torch.uint8
            assert torch.equal(found, expected)


def test_reading_images_draws_nothing_from_torch():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    images = Images(DemoFaces(10, size=16), DataOptions(keep="files"), CPU)
    list(images.batches([torch.arange(5)]))
    assert torch.equal(torch.get_rng_state(), before)
