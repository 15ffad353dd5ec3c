import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import DemoFaces, symmetric_noise, with_symmetric_noise


def names(count):
    return [f"face{number}.png" for number in range(count)]


@st.composite
def labelled(draw):
    num_classes = draw(st.integers(2, 12))
    targets = draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=40))
    return num_classes, torch.tensor(targets)


@settings(deadline=None, max_examples=50)
@given(labelled(), st.floats(0, 1), st.integers(-5, 2**40))
def test_exact_count_of_other_classes(given_labels, rate, seed):
    num_classes, targets = given_labels
    before = targets.clone()
    noisy = symmetric_noise(
        targets, names(len(targets)), num_classes=num_classes, rate=rate, seed=seed
    )
    assert int((noisy != targets).sum()) == round(rate * len(targets))
    assert noisy.min() >= 0
    assert noisy.max() < num_classes
    assert torch.equal(targets, before)


@settings(deadline=None, max_examples=25)
@given(labelled(), st.floats(0, 1), st.integers(0, 9), st.randoms())
def test_order_and_selection_change_nothing(given_labels, rate, seed, random):
    num_classes, targets = given_labels
    ids = names(len(targets))
    options = {"num_classes": num_classes, "rate": rate, "seed": seed}
    noisy = symmetric_noise(targets, ids, **options)
    order = random.sample(range(len(ids)), len(ids))
    chosen = [ids[row] for row in order]
    assert torch.equal(symmetric_noise(targets[order], chosen, **options), noisy[order])
    some = order[: 1 + len(order) // 2]
    part = symmetric_noise(targets[some], [ids[row] for row in some], all_ids=chosen, **options)
    assert torch.equal(part, noisy[some])


def test_is_the_documented_hash():
    # Written out again, so that lists made today stay valid.
    ids, targets, seed = names(50), torch.arange(50) % 7, 3
    numbers = {}
    for name in ids:
        digest = hashlib.blake2b(
            f"{seed}:{name}".encode(), digest_size=16, person=b"symmetric noise"
        ).hexdigest()
        numbers[name] = int(digest[:16], 16), int(digest[16:], 16)
    changed = sorted(ids, key=lambda name: numbers[name][0])[:15]
    expected = [
        (target + 1 + numbers[name][1] % 6) % 7 if name in changed else target
        for name, target in zip(ids, targets.tolist(), strict=True)
    ]
    noisy = symmetric_noise(targets, ids, num_classes=7, rate=0.3, seed=seed)
    assert noisy.tolist() == expected


def test_more_noise_changes_more_of_the_same():
    targets = torch.zeros(200, dtype=torch.int64)
    little, much = (
        symmetric_noise(targets, names(200), num_classes=7, rate=rate, seed=0)
        for rate in (0.1, 0.4)
    )
    assert torch.equal(much[little != 0], little[little != 0])


def test_seeds_and_classes_are_even():
    count, num_classes = 21_000, 7
    targets = torch.arange(count) % num_classes
    noisy = symmetric_noise(targets, names(count), num_classes=num_classes, rate=1.0, seed=1)
    table = torch.zeros(num_classes, num_classes)
    table.index_put_((targets, noisy), torch.ones(count), accumulate=True)
    others = table[~torch.eye(num_classes, dtype=torch.bool)]
    # 500 expected in each of 42 cells; chi-square of 35 degrees of freedom exceeds 80 once in 4e4.
    assert float(((others - 500) ** 2 / 500).sum()) < 80
    first, second = (
        symmetric_noise(targets, names(count), num_classes=num_classes, rate=0.5, seed=seed)
        for seed in (1, 2)
    )
    both = ((first != targets) & (second != targets)).double().mean()
    assert abs(float(both) - 0.25) < 0.015


def test_data_set_keeps_the_labels_from_before():
    faces = DemoFaces(num_samples=30, seed=1)
    noisy = with_symmetric_noise(faces, rate=0.2, seed=4)
    assert torch.equal(noisy.true_targets, faces.targets)
    assert int((noisy.targets != faces.targets).sum()) == 6
    assert noisy.ids == faces.ids
    assert type(noisy) is DemoFaces


def test_noise_before_and_after_a_subset_is_the_same():
    faces, rows = DemoFaces(num_samples=40), torch.tensor([31, 2, 17, 5, 23, 11])
    before = with_symmetric_noise(faces, rate=0.5, seed=0).subset(rows)
    after = with_symmetric_noise(faces.subset(rows), rate=0.5, seed=0)
    assert torch.equal(before.targets, after.targets)
    assert torch.equal(before.true_targets, after.true_targets)


def test_probabilities_have_no_symmetric_noise():
    faces = DemoFaces(num_samples=4)
    soft = faces.with_targets(torch.full((4, len(faces.classes)), 1 / len(faces.classes)))
    with pytest.raises(ValueError, match="one class a sample, got probabilities"):
        with_symmetric_noise(soft, rate=0.2, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.1}, r"rate must lie in \[0, 1\], got 1.1"),
        ({"rate": float("nan")}, "rate must lie in"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"targets": torch.tensor([0, 1, 7])}, "class indices from 0 to 6, got 7 at position 2"),
        ({"targets": torch.zeros(3, 7)}, r"targets must have shape \(N\)"),
        ({"ids": ["a", "b"]}, "ids must name the 3 samples of targets, got 2"),
        ({"ids": ["a", "b", "a"]}, "a name is there twice"),
        ({"all_ids": ["a", "b", "d"]}, "ids must be names of all_ids, got 'c'"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {
        "targets": torch.tensor([0, 1, 2]),
        "ids": ["a", "b", "c"],
        "num_classes": 7,
        "rate": 0.3,
        "seed": 0,
    } | change
    with pytest.raises(ValueError, match=message):
        symmetric_noise(arguments.pop("targets"), arguments.pop("ids"), **arguments)
