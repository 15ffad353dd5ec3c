from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import DemoFaces
from robustfer.noise import (
    NoiseProfile,
    noise_report,
    with_instance_noise,
    with_noise_like,
    with_symmetric_noise,
)
from tests.noise.test_profile import drawn, faces

FER2013 = NoiseProfile.load("fer2013")


def profile_of(counts, by_margin=None, attraction=None):
    counts = torch.tensor(counts)
    classes = tuple(f"class{k}" for k in range(len(counts)))
    return NoiseProfile(classes=classes, counts=counts, by_margin=by_margin, attraction=attraction)


def slow_apportion(total, shares):
    """Largest remainders, in whole numbers."""
    quotas = [round(total * share, 9) for share in shares]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda k: counts[k] - quotas[k])
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return counts


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_counts_are_exact(data):
    num_classes = data.draw(st.integers(2, 6))
    cell = st.integers(0, 20)
    counts = data.draw(
        st.lists(st.lists(cell, min_size=num_classes, max_size=num_classes),
                 min_size=num_classes, max_size=num_classes)
    )  # fmt: skip
    counts = [[n + (k == j) for j, n in enumerate(row)] for k, row in enumerate(counts)]
    by_margin, attraction = tuple(np.linspace(0.9, 0.05, 10)), data.draw(st.floats(0, 4))
    profile = profile_of(counts, by_margin, attraction)
    size = data.draw(st.integers(1, 90))
    true, probabilities, _ = drawn(size, num_classes, data.draw(st.integers(0, 9)))
    clean = faces(true, num_classes=num_classes)
    for given_probabilities in (None, probabilities):
        noisy = with_noise_like(clean, profile, seed=3, probabilities=given_probabilities)
        found = noise_report(noisy).counts.tolist()
        for k in range(num_classes):
            own = int((true == k).sum())
            shares = [n / sum(counts[k]) for n in counts[k]]
            assert found[k] == slow_apportion(own, shares)
    assert torch.equal(clean.targets, torch.tensor(true))


@settings(deadline=None, max_examples=8)
@given(st.randoms(), st.integers(0, 9), st.booleans())
def test_neither_order_of_faces_nor_of_classes_matters(random, seed, with_probabilities):
    true, probabilities, _ = drawn(300, 7)
    clean = faces(true, classes=FER2013.classes)
    told = probabilities if with_probabilities else None
    noisy = with_noise_like(clean, FER2013, seed=seed, probabilities=told)
    plain = with_instance_noise(clean, probabilities, rate=0.3, seed=seed)

    rows = random.sample(range(300), 300)
    other = clean.subset(rows)
    told = probabilities[rows] if with_probabilities else None
    shuffled = with_noise_like(other, FER2013, seed=seed, probabilities=told)
    assert torch.equal(shuffled.targets, noisy.targets[rows])
    shuffled = with_instance_noise(other, probabilities[rows], rate=0.3, seed=seed)
    assert torch.equal(shuffled.targets, plain.targets[rows])

    order = random.sample(range(7), 7)
    renamed = clean.with_classes([clean.classes[k] for k in order])
    told = probabilities[:, order] if with_probabilities else None
    elsewhere = with_noise_like(renamed, FER2013, seed=seed, probabilities=told)
    assert torch.equal(elsewhere.with_classes(clean.classes).targets, noisy.targets)


def test_seeds_differ():
    clean = DemoFaces(num_samples=700)
    first, again, other = (with_noise_like(clean, FER2013, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.targets, again.targets)
    assert 0.1 < float((first.targets != other.targets).double().mean()) < 0.6


def test_a_twin_has_the_profile_of_its_model():
    true, probabilities, _ = drawn(60_000, 7)
    clean = faces(true, classes=FER2013.classes)
    twin = with_noise_like(clean, FER2013, seed=0, probabilities=probabilities)
    found = NoiseProfile.of(twin, probabilities=probabilities)
    torch.testing.assert_close(found.matrix, FER2013.matrix, atol=2e-4, rtol=0)
    assert found.attraction == pytest.approx(FER2013.attraction, abs=0.03)
    # The class shares are others here, and with them the level; the slope must be the same.
    ratio = np.log(np.array(found.by_margin)) - np.log(np.array(FER2013.by_margin))
    assert np.ptp(ratio) < 0.25
    again = with_noise_like(clean, found, seed=1, probabilities=probabilities)
    measured = NoiseProfile.of(again, probabilities=probabilities)
    np.testing.assert_allclose(measured.by_margin, found.by_margin, atol=0.02)
    assert measured.attraction == pytest.approx(found.attraction, abs=0.03)


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0, 3.0])
def test_the_attraction_of_a_profile_is_measured_again(power):
    true, probabilities, _ = drawn(60_000, 7)
    clean = faces(true, classes=FER2013.classes)
    profile = replace(FER2013, attraction=power)
    twin = with_noise_like(clean, profile, seed=0, probabilities=probabilities)
    found = NoiseProfile.of(twin, probabilities=probabilities).attraction
    assert found == pytest.approx(power, rel=0.04, abs=0.02)


def test_without_probabilities_all_faces_of_a_class_are_alike():
    true, probabilities, _ = drawn(60_000, 7)
    clean = faces(true, classes=FER2013.classes)
    noisy = with_noise_like(clean, FER2013, seed=0)
    found = NoiseProfile.of(noisy, probabilities=probabilities)
    assert np.ptp(found.by_margin) < 0.03
    assert found.attraction < 0.05


def test_equal_margins_are_drawn_alike_wherever_they_stand():
    # A vote of ten says the same of half the faces, which stand in the order of their rows.
    clean = faces([0] * 20_000, num_classes=2)
    by_margin = tuple(np.linspace(0.55, 0.05, 10))
    profile = profile_of([[70, 30], [0, 1]], by_margin, 1.0)
    same = torch.tensor([[0.8, 0.2]]).expand(20_000, 2)
    noisy = with_noise_like(clean, profile, seed=0, probabilities=same)
    wrong = (noisy.targets != 0).double()
    for part in wrong.chunk(4):
        assert float(part.mean()) == pytest.approx(0.3, abs=0.03)


def test_classes_that_the_profile_does_not_know_keep_their_labels():
    eight = (*FER2013.classes, "contempt")
    true = torch.arange(800) % 8
    noisy = with_noise_like(faces(true, classes=eight), FER2013, seed=0)
    assert torch.equal(noisy.targets[true == 7], true[true == 7])
    assert not bool((noisy.targets[true != 7] == 7).any())
    told = torch.full((800, 8), 1 / 8)
    assert torch.equal(
        with_noise_like(faces(true, classes=eight), FER2013, seed=0, probabilities=told)
        .targets[true == 7], true[true == 7],
    )  # fmt: skip


def test_what_does_not_fit_is_refused():
    clean = DemoFaces(num_samples=20)
    six = [name for name in clean.classes if name != "disgust"]
    with pytest.raises(ValueError, match="disgust, which the data set lacks"):
        with_noise_like(faces([0, 1], classes=six), FER2013, seed=0)
    with pytest.raises(TypeError, match=r"NoiseProfile, got str.*NoiseProfile\.load"):
        with_noise_like(clean, "fer2013", seed=0)
    plain = replace(FER2013, by_margin=None, attraction=None)
    with pytest.raises(ValueError, match="measured without probabilities"):
        with_noise_like(clean, plain, seed=0, probabilities=torch.full((20, 7), 1 / 7))
    for wrong in (torch.full((20, 6), 1 / 6), torch.full((19, 7), 1 / 7), torch.zeros(20, 7)):
        with pytest.raises(ValueError, match="probabilities"):
            with_noise_like(clean, FER2013, seed=0, probabilities=wrong)
        with pytest.raises(ValueError, match="probabilities"):
            with_instance_noise(clean, wrong, rate=0.1, seed=0)
    with pytest.raises(ValueError, match="seed"):
        with_noise_like(clean, FER2013, seed=0.5)
    soft = faces(torch.full((4, 3), 1 / 3))
    with pytest.raises(ValueError, match="one class per sample"):
        with_noise_like(soft, FER2013, seed=0)
    with pytest.raises(ValueError, match="rate"):
        with_instance_noise(clean, torch.full((20, 7), 1 / 7), rate=1.1, seed=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 80), st.integers(2, 6), st.floats(0, 1), st.integers(-3, 2**40))
def test_instance_noise_is_exact_in_count(size, num_classes, rate, seed):
    true, probabilities, _ = drawn(size, num_classes)
    noisy = with_instance_noise(
        faces(true, num_classes=num_classes), probabilities, rate=rate, seed=seed
    )
    assert noise_report(noisy).changed == round(rate * size)


def test_more_instance_noise_changes_more_of_the_same():
    true, probabilities, _ = drawn(500)
    little, much = (
        with_instance_noise(faces(true), probabilities, rate=rate, seed=0).targets
        for rate in (0.1, 0.4)
    )
    changed = little != torch.tensor(true)
    assert torch.equal(much[changed], little[changed])


def test_instance_noise_follows_its_equation():
    # Two kinds of face: the constant c solves the rate, and gives the share of each kind.
    kinds = torch.tensor([[0.9, 0.07, 0.03], [0.5, 0.1, 0.4]], dtype=torch.float64)
    rows = kinds.repeat(20_000, 1)
    noisy = with_instance_noise(faces([0] * 40_000), rows, rate=0.3, seed=0).targets
    low, high = 0.0, 100.0
    for _ in range(60):
        c = (low + high) / 2
        wrong = c * (1 - kinds[:, 0]) / (kinds[:, 0] + c * (1 - kinds[:, 0]))
        low, high = (c, high) if float(wrong.mean()) < 0.3 else (low, c)
    for kind in (0, 1):
        own = noisy[kind::2]
        assert float((own != 0).double().mean()) == pytest.approx(float(wrong[kind]), abs=0.012)
        to_one = float((own[own != 0] == 1).double().mean())
        expected = float(kinds[kind, 1] / (kinds[kind, 1] + kinds[kind, 2]))
        assert to_one == pytest.approx(expected, abs=0.03)


def test_even_faces_make_instance_noise_symmetric():
    true = torch.arange(700) % 7
    even = torch.full((700, 7), 1 / 7)
    clean = faces(true, num_classes=7)
    noisy = with_instance_noise(clean, even, rate=0.3, seed=5)
    symmetric = with_symmetric_noise(clean, rate=0.3, seed=5)
    hit = noisy.targets != true
    assert torch.equal(hit, symmetric.targets != true)  # the same faces for the same seed


def test_sure_predictions_still_give_the_count():
    sure = torch.eye(3)[torch.zeros(10, dtype=torch.int64)]
    noisy = with_instance_noise(faces([0] * 10), sure, rate=0.5, seed=0)
    assert noise_report(noisy).changed == 5
    other = with_instance_noise(faces([1] * 10), sure, rate=1.0, seed=0)
    assert other.targets.tolist() == [0] * 10
