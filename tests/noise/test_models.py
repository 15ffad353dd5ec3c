import hashlib
import os
import random
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Subset

from robustfer.data import EXPRESSIONS, DemoFaces
from robustfer.noise import noise_report, with_class_noise, with_symmetric_noise
from robustfer.noise.matrices import LANET_CONFUSIONS, noise_matrix
from robustfer.noise.models import class_noise, symmetric_noise

VARIANTS = st.sampled_from(["exact", "bernoulli"])


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
@given(
    labelled(),
    st.floats(0, 1),
    st.integers(0, 9),
    st.randoms(),
    VARIANTS,
    st.sampled_from(["excluded", "included"]),
)
def test_order_and_selection_change_nothing(given_labels, rate, seed, random, variant, true_class):
    num_classes, targets = given_labels
    ids = names(len(targets))
    options = {"num_classes": num_classes, "rate": rate, "seed": seed, "variant": variant}
    options["true_class"] = true_class
    noisy = symmetric_noise(targets, ids, **options)
    order = random.sample(range(len(ids)), len(ids))
    chosen = [ids[row] for row in order]
    assert torch.equal(symmetric_noise(targets[order], chosen, **options), noisy[order])
    some = order[: 1 + len(order) // 2]
    part = symmetric_noise(targets[some], [ids[row] for row in some], all_ids=chosen, **options)
    assert torch.equal(part, noisy[some])


@settings(deadline=None, max_examples=25)
@given(labelled(), st.floats(0, 1), st.integers(0, 9), st.randoms())
def test_bernoulli_knows_no_other_sample(given_labels, rate, seed, random):
    num_classes, targets = given_labels
    ids = names(len(targets))
    options = {"num_classes": num_classes, "rate": rate, "seed": seed, "variant": "bernoulli"}
    noisy = symmetric_noise(targets, ids, **options)
    row = random.randrange(len(ids))
    alone = symmetric_noise(targets[row : row + 1], ids[row : row + 1], **options)
    assert alone.tolist() == noisy[row : row + 1].tolist()


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


@pytest.mark.parametrize(
    ("rate", "changed"), [(0.0, ""), (0.25, "d"), (0.5, "ad"), (0.75, "abd"), (1.0, "abcd")]
)
def test_names_break_ties(monkeypatch, rate, changed):
    words = np.array([[5, 0], [5, 0], [5, 0], [3, 0]], dtype=np.uint64)
    monkeypatch.setattr("robustfer.noise.models.two_words", lambda *_: words[[2, 3, 0, 1]])
    noisy = symmetric_noise(
        torch.zeros(4, dtype=torch.int64), list("cdab"), num_classes=2, rate=rate, seed=0
    )
    assert sorted(name for name, label in zip("cdab", noisy.tolist(), strict=True) if label) == [
        *changed
    ]


@pytest.mark.parametrize(("rate", "changed"), [(0.0, 0), (2**-64, 1), (0.5, 2), (1.0, 4)])
def test_bernoulli_compares_all_64_bits(monkeypatch, rate, changed):
    words = np.array([[0, 0], [2**63 - 1, 0], [2**63, 0], [2**64 - 1, 0]], dtype=np.uint64)
    monkeypatch.setattr("robustfer.noise.models.two_words", lambda *_: words)
    options = {"num_classes": 2, "rate": rate, "seed": 0, "variant": "bernoulli"}
    noisy = symmetric_noise(torch.zeros(4, dtype=torch.int64), list("abcd"), **options)
    assert noisy.tolist() == [1] * changed + [0] * (4 - changed)


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


def share(count, num_classes=7, **options):
    """Share of samples changed, and of each new class, where all were of class 2."""
    targets = torch.full((count,), 2)
    noisy = symmetric_noise(targets, names(count), num_classes=num_classes, seed=3, **options)
    return float((noisy != 2).double().mean()), noisy.bincount(minlength=num_classes) / count


def test_rates_of_the_variants():
    exact, _ = share(5000, rate=0.3)
    bernoulli, _ = share(5000, rate=0.3, variant="bernoulli")
    assert exact == 0.3
    assert bernoulli != 0.3
    assert abs(bernoulli - 0.3) < 4 * (0.3 * 0.7 / 5000) ** 0.5


def test_the_true_class_may_be_included():
    changed, classes = share(7000, rate=1.0, true_class="included")
    torch.testing.assert_close(classes, torch.full((7,), 1 / 7), atol=0.02, rtol=0)
    assert abs(changed - 6 / 7) < 0.02
    everyone, classes = share(7000, rate=1.0)
    assert everyone == 1.0
    assert classes[2] == 0


def test_the_public_programs_draws():
    targets = torch.tensor([0, 5, 6, 3, 3, 1, 2, 4] * 4)
    generator, expected = random.Random(7), []
    for target in targets.tolist():
        hit = generator.random() < 0.4
        expected.append((target + generator.randint(1, 6)) % 7 if hit else target)
    noisy = symmetric_noise(targets, names(32), num_classes=7, rate=0.4, seed=7, variant="official")
    assert noisy.tolist() == expected


def test_the_public_programs_draws_count_classes_its_way():
    faces = DemoFaces(num_samples=70)
    noisy = with_symmetric_noise(faces, rate=0.5, seed=1, variant="official")
    theirs = faces.with_classes("lanet")
    expected = symmetric_noise(
        theirs.targets, theirs.ids, num_classes=7, rate=0.5, seed=1, variant="official"
    )
    assert torch.equal(noisy.with_classes("lanet").targets, expected)
    with pytest.raises(ValueError, match="put the noise on the full split and take the subset"):
        with_symmetric_noise(faces.subset([1, 2]), rate=0.5, seed=1, variant="official")


MATRIX = torch.tensor([[0.0, 0.75, 0.25], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])


def test_class_noise_follows_the_matrix():
    count = 12_000
    targets = torch.arange(count) % 3
    noisy = class_noise(targets, names(count), confusions=MATRIX, rate=1.0, seed=5)
    table = torch.zeros(3, 3)
    table.index_put_((targets, noisy), torch.ones(count), accumulate=True)
    torch.testing.assert_close(table / 4000, MATRIX, atol=0.03, rtol=0)
    assert bool((table[MATRIX == 0] == 0).all())


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 1), st.integers(0, 9), VARIANTS)
def test_class_noise_draws_the_samples_that_symmetric_noise_does(rate, seed, variant):
    targets, ids = torch.arange(60) % 7, names(60)
    options = {"rate": rate, "seed": seed, "variant": variant}
    matrix = noise_matrix(LANET_CONFUSIONS, EXPRESSIONS)
    by_class = class_noise(targets, ids, confusions=matrix, **options)
    symmetric = symmetric_noise(targets, ids, num_classes=7, **options)
    hit = symmetric != targets
    assert torch.equal(by_class != targets, hit)
    assert torch.equal(by_class[hit], matrix.argmax(1)[targets[hit]])


def test_every_number_finds_a_class():
    # Shares whose sum rounds to less than 1 must not send a sample beyond the last class.
    matrix = torch.tensor([[0.1] * 10 + [0.0]] * 11, dtype=torch.float64)
    targets = torch.full((3000,), 10)
    noisy = class_noise(targets, names(3000), confusions=matrix, rate=1.0, seed=0)
    assert noisy.max() <= 9
    assert len(noisy.unique()) == 10


def test_named_confusions_on_a_data_set():
    faces = DemoFaces(num_samples=70)
    noisy = with_class_noise(faces, "lanet", rate=0.3, seed=0)
    assert torch.equal(noisy.true_targets, faces.targets)
    hit = noisy.targets != faces.targets
    assert int(hit.sum()) == 21
    for given_label, true in zip(noisy.targets[hit], faces.targets[hit], strict=True):
        assert LANET_CONFUSIONS[faces.classes[true]] == faces.classes[given_label]
    rows = torch.arange(40, 0, -3)
    after = noisy.subset(rows)
    before = with_class_noise(faces.subset(rows), "lanet", rate=0.3, seed=0)
    assert torch.equal(before.targets, after.targets)
    # In another order of the classes the same faces get the same names.
    moved = faces.with_classes("fer2013")
    other = with_class_noise(moved, LANET_CONFUSIONS, rate=0.3, seed=0)
    assert torch.equal(other.with_classes(faces.classes).targets, noisy.targets)
    with pytest.raises(
        ValueError, match="confusions must have a row for each of surprise, .* got 3"
    ):
        with_class_noise(faces, MATRIX, rate=0.3, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confusions": torch.ones(3, 2)}, "confusions has C=2 but|must have shape|C=3"),
        (
            {"confusions": torch.ones(3, 3)},
            "rows of confusions must be probabilities that sum to 1",
        ),
        ({"variant": "official"}, "one wrong class per class"),
        ({"variant": "paper"}, "variant must be 'exact', 'bernoulli' or 'official', got 'paper'"),
        ({"targets": torch.tensor([3])}, "class indices from 0 to 2, got 3"),
        ({"rate": -0.1}, "rate must lie in"),
    ],
)
def test_bad_arguments_of_class_noise(change, message):
    arguments = {"targets": torch.tensor([0]), "confusions": MATRIX, "rate": 0.5, "seed": 0}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        class_noise(arguments.pop("targets"), ["a"], **arguments)


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


def test_probabilities_have_no_noise():
    faces = DemoFaces(num_samples=4)
    soft = faces.with_targets(torch.full((4, len(faces.classes)), 1 / len(faces.classes)))
    with pytest.raises(ValueError, match="one class per sample .* got probabilities"):
        with_symmetric_noise(soft, rate=0.2, seed=0)


ARGUMENTS = {"targets": torch.tensor([0, 1, 2]), "ids": ["a", "b", "c"], "rate": 0.9, "seed": 5}
MODELS = [
    pytest.param(partial(symmetric_noise, num_classes=3), id="symmetric"),
    pytest.param(partial(class_noise, confusions=MATRIX), id="class"),
]


@pytest.mark.parametrize("noise", MODELS)
@pytest.mark.parametrize("variant", ["exact", "bernoulli", "official"])
@pytest.mark.parametrize(
    "seed", [0.0, None, False, "zero", np.float64(0), float("nan"), object(), torch.tensor(True)]
)
def test_seeds_are_whole_numbers(noise, variant, seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        noise(**ARGUMENTS | {"seed": seed}, variant=variant)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
@pytest.mark.parametrize("noise", MODELS)
def test_whole_numbers_of_any_kind_are_the_same_seed(noise, kind):
    arguments = ARGUMENTS | {"targets": torch.arange(60) % 3, "ids": names(60)}
    assert torch.equal(noise(**arguments | {"seed": kind(5)}), noise(**arguments))


def test_a_negative_seed_is_a_draw_of_its_own():
    targets, ids = torch.zeros(60, dtype=torch.int64), names(60)
    options = {"num_classes": 7, "rate": 0.5}
    minus, plus = (symmetric_noise(targets, ids, seed=seed, **options) for seed in (-1, 1))
    assert not torch.equal(minus, plus)
    # Python's generator makes no difference between them.
    with pytest.raises(ValueError, match="seed must be a whole number from 0 on, got -1"):
        symmetric_noise(targets, ids, seed=-1, variant="official", **options)


@pytest.mark.parametrize("noise", MODELS)
@pytest.mark.parametrize(
    "ids",
    [
        *({"a", "b", "c"}, "abc", b"abc", dict.fromkeys("abc"), dict.fromkeys("abc").keys()),
        *(iter("abc"), [1, 2, 3], ["a", "b", None], torch.tensor([1, 2, 3])),
    ],
)
def test_ids_are_an_ordered_sequence_of_texts(noise, ids):
    with pytest.raises(TypeError, match="ids must be"):
        noise(**ARGUMENTS | {"ids": ids})
    if not hasattr(ids, "__next__"):
        with pytest.raises(TypeError, match="all_ids must be"):
            noise(**ARGUMENTS | {"all_ids": ids})


def test_ids_of_arrays_and_tuples():
    targets, ids = torch.zeros(40, dtype=torch.int64), names(40)
    expected = symmetric_noise(targets, ids, num_classes=7, rate=0.5, seed=0)
    for same in (tuple(ids), np.array(ids)):
        found = symmetric_noise(
            targets, same, num_classes=7, rate=0.5, seed=0, all_ids=np.array(ids)
        )
        assert torch.equal(found, expected)


@pytest.mark.parametrize("noise", MODELS)
@pytest.mark.parametrize("variant", ["exact", "bernoulli", "official"])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"targets": torch.tensor([0.0, 1.0, 2.0])}, "targets must be int64, got torch.float32"),
        ({"targets": torch.full((3,), torch.nan)}, "targets must be int64, got torch.float32"),
        ({"targets": torch.tensor([True, False, True])}, "targets must be int64, got torch.bool"),
        ({"targets": [0, 1, 2]}, "targets must be a torch.Tensor, got list"),
        ({"targets": torch.tensor([0, 1, -1])}, "class indices from 0 to 2, got -1"),
        ({"rate": True}, "rate must be a number, got True"),
        ({"rate": "0.3"}, "rate must be a number, got '0.3'"),
        ({"rate": float("inf")}, "rate must lie in"),
        ({"ids": ["a", "b", "a"]}, "ids must have each name once, got 'a' 2 times"),
        ({"all_ids": []}, "ids must be names of all_ids, got 'a'"),
        ({"all_ids": ["a", "b", "c", "a"]}, "all_ids must have each name once"),
    ],
)
def test_what_is_checked_for_every_model_and_variant(noise, variant, change, error):
    with pytest.raises((TypeError, ValueError), match=error):
        noise(**ARGUMENTS | change, variant=variant)


@pytest.mark.parametrize("number", [7.5, 7.0, float("nan"), True, "7", None])
def test_the_number_of_classes_is_whole(number):
    with pytest.raises(ValueError, match="num_classes must be a whole number from 2 on"):
        symmetric_noise(**ARGUMENTS, num_classes=number)


def test_a_matrix_of_whole_numbers_is_named():
    with pytest.raises(ValueError, match="confusions must have a floating-point dtype, got t"):
        class_noise(**ARGUMENTS, confusions=torch.eye(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("confusions", "message"),
    [
        ([[1.0]], "confusions must be names of classes, .* a matrix, 'lanet' or 'crowd', got list"),
        ("people", "confusions must be 'lanet' or 'crowd', got 'people'"),
        ("crowd", "the data set has no votes of several people"),
        ({"dog": "fear"}, "classes of surprise, .* got 'dog'"),
    ],
)
def test_what_is_no_confusions(confusions, message):
    with pytest.raises((TypeError, ValueError), match=message):
        with_class_noise(DemoFaces(7), confusions, rate=0.3, seed=0)


def test_a_crowd_confuses_as_its_votes_do():
    faces = DemoFaces(70)
    faces.votes = 6 * torch.nn.functional.one_hot(faces.targets, 7)
    faces.votes[:, 0] += 3  # every crowd has three people who see surprise
    noisy = with_class_noise(faces, "crowd", rate=1.0, seed=0)
    assert bool((noisy.targets == 0).all())
    faces.votes.zero_()
    with pytest.raises(ValueError, match="no face of the data set has more than half of its votes"):
        with_class_noise(faces, "crowd", rate=1.0, seed=0)


def test_names_that_are_not_utf_8():
    undecodable = os.fsdecode(b"\xc0\xb6_0.png")
    targets, ids = torch.zeros(40, dtype=torch.int64), [undecodable, *names(39)]
    noisy = symmetric_noise(targets, ids, num_classes=7, rate=0.5, seed=0)
    digest = hashlib.blake2b(b"0:\xc0\xb6_0.png", digest_size=16, person=b"symmetric noise")
    number = int(digest.hexdigest()[16:], 16)
    everyone = symmetric_noise(targets, ids, num_classes=7, rate=1.0, seed=0)
    assert int(everyone[0]) == (1 + number % 6) % 7
    assert torch.equal(noisy[noisy != 0], everyone[noisy != 0])
    with pytest.raises(ValueError, match=r"the name '\\ud800' cannot be written as text"):
        symmetric_noise(targets, ["\ud800", *names(39)], num_classes=7, rate=0.5, seed=0)


@pytest.mark.parametrize(
    "join", [lambda faces: Subset(faces, range(3)), lambda f: ConcatDataset([f, f])]
)
@pytest.mark.parametrize(
    "noise",
    [
        partial(with_symmetric_noise, rate=0.3, seed=0),
        partial(with_class_noise, confusions=MATRIX, rate=0.3, seed=0),
        noise_report,
    ],
)
def test_data_sets_of_torch_are_refused_with_what_to_do(noise, join):
    with pytest.raises(TypeError, match=r"dataset must be one of robustfer's .* dataset\.subset"):
        noise(join(DemoFaces(7)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.1}, r"rate must lie in \[0, 1\], got 1.1"),
        ({"rate": float("nan")}, "rate must lie in"),
        ({"num_classes": 1}, "num_classes must be a whole number from 2 on, got 1"),
        ({"true_class": "maybe"}, "true_class must be 'excluded' or 'included', got 'maybe'"),
        ({"variant": "mean"}, "variant must be 'exact', 'bernoulli' or 'official', got 'mean'"),
        ({"variant": "official", "num_classes": 8}, "seven classes .* got 8 classes"),
        ({"variant": "official", "true_class": "included"}, "true_class='excluded'"),
        ({"targets": torch.tensor([0, 1, 7])}, "class indices from 0 to 6, got 7 at position 2"),
        ({"targets": torch.zeros(3, 7)}, r"targets must have shape \(N\)"),
        ({"ids": ["a", "b"]}, "ids must name each of 3 samples, got 2 names"),
        ({"ids": ["a", "b", "a"]}, "ids must have each name once, got 'a' 2 times"),
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
