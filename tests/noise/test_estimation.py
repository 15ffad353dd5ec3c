import math
from functools import cache

import numpy as np
import pytest
import torch

from robustfer.noise import transition_from_confident_joint, transition_from_verified
from robustfer.noise._beta import beta_quantile

# How labels of seven expressions may go wrong: shares that shift, a rare class, zeros.
SHARES = np.array([0.13, 0.03, 0.01, 0.32, 0.11, 0.07, 0.33])
TRANSITION = np.array(
    [
        [0.80, 0.14, 0.00, 0.02, 0.02, 0.01, 0.01],
        [0.10, 0.84, 0.00, 0.01, 0.03, 0.01, 0.01],
        [0.00, 0.02, 0.86, 0.00, 0.03, 0.09, 0.00],
        [0.02, 0.01, 0.00, 0.91, 0.01, 0.01, 0.04],
        [0.01, 0.21, 0.01, 0.02, 0.65, 0.05, 0.05],
        [0.01, 0.12, 0.01, 0.01, 0.03, 0.81, 0.01],
        [0.03, 0.09, 0.00, 0.05, 0.23, 0.09, 0.51],
    ]
)
JOINT = SHARES[:, None] * TRANSITION
CLASSES = len(SHARES)


def from_counts(counts, **options):
    """The estimate from a row per verified sample."""
    true, given = np.nonzero(counts)
    times = counts[true, given]
    return transition_from_verified(
        np.repeat(true, times), np.repeat(given, times), num_classes=len(counts), **options
    )


def draw(generator, size, stratified):
    if not stratified:
        return generator.multinomial(size, JOINT.ravel()).reshape(CLASSES, CLASSES), {}
    columns = [generator.multinomial(size // CLASSES, column / column.sum()) for column in JOINT.T]
    return np.stack(columns, axis=1), {"given_counts": np.round(28_000 * JOINT.sum(axis=0))}


@pytest.mark.parametrize("prior", [(0.3, 2.0), (1.0, 0.0)])
def test_is_the_loop(prior):
    a, b = prior
    true = torch.randint(3, (40,), generator=torch.Generator().manual_seed(0))
    given = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
    estimate = transition_from_verified(true, given, num_classes=4, prior=a, prior_diagonal=b)
    for k in range(4):
        row = [a + b * (k == label) for label in range(4)]
        for one, other in zip(true.tolist(), given.tolist(), strict=True):
            if one == k:
                row[other] += 1
        for label in range(4):
            assert estimate.matrix[k, label].item() == pytest.approx(row[label] / sum(row))
            assert int(estimate.counts[k, label]) == int(
                sum(
                    one == k and other == label
                    for one, other in zip(true.tolist(), given.tolist(), strict=True)
                )
            )
        share = (sum(one == k for one in true.tolist()) + a) / (40 + 4 * a)
        assert estimate.shares[k].item() == pytest.approx(share)
    assert estimate.matrix.dtype == torch.float64
    assert (estimate.matrix_low <= estimate.matrix).all()


def test_intervals_are_those_of_the_posterior():
    counts = draw(np.random.default_rng(0), 100, stratified=False)[0]
    estimate = from_counts(counts, level=0.9)
    generator = np.random.default_rng(1)
    for k in range(CLASSES):
        pseudo = counts[k] + 0.3 + 2.0 * (np.arange(CLASSES) == k)
        drawn = generator.dirichlet(pseudo, size=40_000)
        low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
        np.testing.assert_allclose(estimate.matrix_low[k], low, atol=0.015)
        np.testing.assert_allclose(estimate.matrix_high[k], high, atol=0.015)
    drawn = generator.dirichlet(counts.sum(axis=1) + 0.3, size=40_000)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    np.testing.assert_allclose(estimate.shares_low, low, atol=0.01)
    np.testing.assert_allclose(estimate.shares_high, high, atol=0.01)


@cache
def simulated(size, stratified):
    """Return the estimates from 20 draws. Several tests look at them, because they are slow."""
    generator = np.random.default_rng(0)
    draws = (draw(generator, size, stratified) for _ in range(20))
    return [from_counts(counts, **options) for counts, options in draws]


@pytest.mark.parametrize("size", [100, 300])
@pytest.mark.parametrize("stratified", [False, True])
def test_intervals_hold_the_truth_about_as_often_as_they_say(stratified, size):
    estimates = simulated(size, stratified)
    entries, shares, rounds = np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES), len(estimates)
    for found in estimates:
        low, high = found.matrix_low.numpy(), found.matrix_high.numpy()
        entries += (low - 1e-6 <= TRANSITION) & (high >= TRANSITION)
        shares += (found.shares_low.numpy() <= SHARES) & (found.shares_high.numpy() >= SHARES)
    assert 0.92 < entries.mean() / rounds <= 1.0
    assert entries.min() / rounds > 0.5  # an entry of the rarest class may be seen in no draw
    assert 0.90 < shares.mean() / rounds < 0.99


def test_a_stratified_draw_is_weighted_to_the_data_set():
    """Without weights the shares would be those of the draw, whose labels are even."""
    counts, options = draw(np.random.default_rng(0), 700_000, stratified=True)
    estimate = from_counts(counts, **options)
    np.testing.assert_allclose(estimate.shares, SHARES, atol=2e-3)
    np.testing.assert_allclose(estimate.matrix, TRANSITION, atol=5e-3)
    assert np.abs(from_counts(counts).shares.numpy() - SHARES).max() > 0.05


def test_a_stratified_draw_tells_more_of_rare_classes():
    random, stratified = (
        np.mean([np.abs(found.matrix.numpy() - TRANSITION)[[1, 2]] for found in estimates])
        for estimates in (simulated(100, False), simulated(100, True))
    )
    assert stratified < random


def test_even_weights_are_a_random_draw():
    counts = np.array([[8, 2], [1, 9]])
    one, other = from_counts(counts), from_counts(counts, given_counts=[900, 1100])
    torch.testing.assert_close(one.matrix, other.matrix)
    torch.testing.assert_close(one.shares, other.shares, atol=0.01, rtol=0)


@pytest.mark.parametrize("given_counts", [None, [900, 300, 600]])
def test_learnt_labels_that_are_the_given_ones_change_nothing(given_counts):
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(-1, 3, (60,), generator=generator)
    given = torch.randint(3, (60,), generator=generator)
    options = {"num_classes": 3, "given_counts": given_counts}
    one = transition_from_verified(true, given, **options)
    other = transition_from_verified(true, given, learnt=torch.eye(3)[given], **options)
    for name in ("matrix", "shares", "shares_low", "counts"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_learnt_labels_count_by_their_probabilities():
    learnt = [[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]
    options = {"num_classes": 2, "given_counts": [400, 400], "prior": 0.5, "prior_diagonal": 1.0}
    found = transition_from_verified([0, 0, 1], [0, 1, 1], learnt=learnt, **options)
    weights = torch.tensor([1.5, 0.75, 0.75])  # the one of label 0 stands for 400, two for 400
    first = weights[0] * torch.tensor(learnt[0]) + weights[1] * torch.tensor(learnt[1])
    first *= (1.5 + 0.75) / (1.5**2 + 0.75**2)
    second = torch.tensor(learnt[2]) * 0.75 * 0.75 / 0.75**2
    for row, own, prior in ((0, first, [1.5, 0.5]), (1, second, [0.5, 1.5])):
        pseudo = own + torch.tensor(prior)
        torch.testing.assert_close(found.matrix[row], (pseudo / pseudo.sum()).double())
    torch.testing.assert_close(found.matrix.sum(dim=1), torch.ones(2).double())
    assert (found.matrix_low < found.matrix).all()
    assert (found.matrix < found.matrix_high).all()


def test_ambiguous_samples_are_left_out():
    one = transition_from_verified([0, -1, 1, -1], [0, 1, 1, 0], num_classes=2)
    other = transition_from_verified([0, 1], [0, 1], num_classes=2)
    assert torch.equal(one.matrix, other.matrix)
    assert int(one.counts.sum()) == 2


def test_rows_and_shares_are_distributions_whatever_was_verified():
    for true, given in (([0], [1]), ([-1], [0]), ([2, 2, 2], [0, 1, 2])):
        estimate = transition_from_verified(true, given, num_classes=3)
        torch.testing.assert_close(estimate.matrix.sum(dim=1), torch.ones(3).double())
        torch.testing.assert_close(estimate.shares.sum(), torch.ones(()).double())
        for name in ("matrix", "shares"):
            value, low, high = (getattr(estimate, name + end) for end in ("", "_low", "_high"))
            assert ((low >= 0) & (low <= value) & (value <= high) & (high <= 1)).all()


def test_a_label_that_nobody_was_given_changes_nothing():
    """A folder of six expressions has seven classes."""
    counts = np.array([[8, 2, 0], [1, 9, 0], [1, 1, 0]])
    found = from_counts(counts, given_counts=[700, 300, 0])
    for name in ("matrix", "shares"):
        for end in ("", "_low", "_high"):
            assert getattr(found, name + end).isfinite().all()
    torch.testing.assert_close(found.shares.sum(), torch.ones(()).double())
    # 700 of which two in ten are wrong, 300 of which a quarter.
    assert found.wrong == pytest.approx(0.7 * 2 / 10 + 0.3 * 3 / 12, abs=0.02)


def test_a_label_without_a_verified_sample_is_a_guess_with_wide_intervals():
    true, given = [0] * 30 + [1] * 30, [0] * 30 + [1] * 30
    found = transition_from_verified(true, given, num_classes=3, given_counts=[500, 450, 50])
    assert found.counts.sum(dim=0).tolist() == [30, 30, 0]
    # Class 2 is guessed to be most of its own label.
    assert found.matrix[2].argmax() == 2
    assert found.matrix_high[2, 2] - found.matrix_low[2, 2] > 0.7
    assert found.shares_low[2] < 0.02 < found.shares[2] < found.shares_high[2]
    assert (found.shares - torch.tensor([0.49, 0.44, 0.05]).double()).abs().max() < 0.03
    # The guess does not reach what was verified.
    assert found.matrix[0, 0] > 0.9
    learnt = torch.eye(3)[torch.tensor(given)]
    again = transition_from_verified(
        true, given, num_classes=3, given_counts=[500, 450, 50], learnt=learnt
    )
    torch.testing.assert_close(again.matrix, found.matrix)


@pytest.mark.parametrize("stratified", [False, True])
def test_the_share_of_wrong_labels_is_that_of_the_verified(stratified):
    wrong, found = 1 - JOINT.trace(), simulated(100, stratified)
    assert np.mean([one.wrong for one in found]) == pytest.approx(wrong, abs=0.02)
    held = np.mean([one.wrong_low <= wrong <= one.wrong_high for one in found])
    assert held > 0.8


def test_two_labels_that_agree_by_chance_are_not_certain():
    given = torch.arange(20).repeat(2)
    true = torch.where(given < 6, given + 1, given)
    found = transition_from_verified(true, given, num_classes=20, given_counts=[50] * 20)
    assert found.wrong == pytest.approx(0.3, abs=0.01)
    # Of 40 samples without strata it is 3.9 standard deviations wide.
    assert found.wrong_high - found.wrong_low > 2.5 * (0.3 * 0.7 / 40) ** 0.5


@pytest.mark.parametrize("num_classes", [7, 100, 200])
def test_labels_that_are_all_right_are_not_called_wrong(num_classes):
    true = torch.arange(10 * num_classes) % num_classes
    for options in ({}, {"given_counts": [50] * num_classes}):
        found = transition_from_verified(true, true, num_classes=num_classes, **options)
        assert found.wrong < 0.01
        assert found.matrix.diagonal().min() > 0.8


def test_two_hundred_classes():
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(200, (1000,), generator=generator)
    given = torch.where(torch.rand(1000, generator=generator) < 0.7, true, true.roll(1))
    estimate = transition_from_verified(true, given, num_classes=200)
    torch.testing.assert_close(estimate.matrix.sum(dim=1), torch.ones(200).double())


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([0, 1], [0]), {}, ValueError, "true has N=2 but given has N=1"),
        (([0, 3], [0, 1]), {}, ValueError, r"true must lie in \[-1, 2\], got 3 at position 1"),
        (([0, 1], [0, -1]), {}, ValueError, "given must hold class indices from 0 to 2, got -1"),
        (([0.5, 1], [0, 1]), {}, ValueError, "true must be int64, got torch.float64"),
        (([0, 1], ["a", "b"]), {}, TypeError, "given must be .* numbers, got list of str"),
        (([0, 1], [0, 1]), {"prior": 0.0}, ValueError, r"prior must lie in \(0, inf\)"),
        (([0, 1], [0, 1]), {"prior_diagonal": -1.0}, ValueError, "prior_diagonal must lie in"),
        (([0, 1], [0, 1]), {"level": 1.0}, ValueError, r"level must lie in \(0, 1\)"),
        (
            ([0, 1], [0, 1]),
            {"given_counts": [5, 0, 0]},
            ValueError,
            "given_counts must count every label in given, got 0 for the label 1",
        ),
        (([0, 1], [0, 1]), {"given_counts": [5, 5]}, ValueError, "given_counts must have shape"),
        (([0, 1], [0, 1]), {"given_counts": [5, -5, 0]}, ValueError, "given_counts must lie in"),
        (([0, 1], [0, 1]), {"given_counts": [0, 0, 0]}, ValueError, "got only zeros"),
        (([0, 1], [0, 1]), {"given_counts": [5, 5, math.nan]}, ValueError, "counts must be finite"),
        (([0, 1], [0, 1]), {"given_counts": [math.inf, 5, 5]}, ValueError, "given_counts must be"),
        (([0, 1], [0, 1]), {"learnt": [[0.5, 0.5]] * 2}, ValueError, "learnt must have shape"),
        (([0, 1], [0, 1]), {"learnt": [[0.2, 0.3, 0.5]]}, ValueError, "true has N=2 but learnt"),
        (([0, 1], [0, 1]), {"learnt": [[1.0, 1.0, 0.0]] * 2}, ValueError, "rows of learnt must"),
    ],
)
def test_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        transition_from_verified(*arguments, num_classes=3, **options)


def test_the_table_names_each_class_once():
    estimate = transition_from_verified([0, 1, 1], [0, 1, 0], num_classes=2)
    lines = estimate.text(["sad", "glad"]).splitlines()
    assert [line.split()[0] for line in lines] == ["true", "sad", "glad"]
    with pytest.raises(ValueError, match="classes must have 2 names, got 1"):
        estimate.text(["sad"])


def slow_confident_joint(given, probabilities):
    classes = len(probabilities[0])
    threshold = []
    for k in range(classes):
        own = [row[k] for row, label in zip(probabilities, given, strict=True) if label == k]
        threshold.append(sum(own) / len(own) if own else math.inf)
    joint = [[1] * classes for _ in range(classes)]
    for row, label in zip(probabilities, given, strict=True):
        above = [k for k in range(classes) if row[k] >= threshold[k]]
        if above:
            joint[max(above, key=lambda k: row[k])][label] += 1
    return torch.tensor([[count / sum(row) for count in row] for row in joint]).double()


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_confident_joint_is_the_loop(classes):
    generator = torch.Generator().manual_seed(0)
    rows = (2 * torch.randn(300, classes, generator=generator).double()).softmax(dim=1)
    given = torch.randint(classes - 1, (300,), generator=generator)  # one class has no sample
    expected = slow_confident_joint(given.tolist(), rows.tolist())
    found = transition_from_confident_joint(given, rows)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(transition_from_confident_joint(given.numpy(), rows.numpy()), found)
    torch.testing.assert_close(transition_from_confident_joint(given, rows.float()), found)


def test_confident_joint_finds_the_matrix_where_the_network_is_right():
    generator = np.random.default_rng(0)
    true = generator.choice(CLASSES, size=70_000, p=SHARES)
    given = np.array([generator.choice(CLASSES, p=TRANSITION[k]) for k in true[:7000]])
    logits = generator.normal(size=(7000, CLASSES)) + 9 * np.eye(CLASSES)[true[:7000]]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = transition_from_confident_joint(given, probabilities)
    assert np.abs(found.numpy() - TRANSITION)[[0, 3, 4, 6]].mean() < 0.03


def test_confident_joint_refuses():
    rows = [[0.5, 0.5], [0.2, 0.8]]
    for probabilities, given, message in (
        (rows, [0], "given has N=1 but probabilities has N=2"),
        (rows, [0, 2], "given must hold class indices from 0 to 1, got 2"),
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], "row 0 sums to 1 and its least value is -1; "),
        ([[0.5, 0.7], [0.5, 0.5]], [0, 1], "row 0 sums to 1.2 "),
        ([[math.nan, 1.0], [0.5, 0.5]], [0, 1], "probabilities must be finite"),
        ([[1.0], [1.0]], [0, 0], "probabilities must have two classes or more, got 1"),
        ([[1, 0], [0, 1]], [0, 1], "probabilities must hold floating-point numbers"),
        ([0.5, 0.5], [0, 1], r"probabilities must have shape \(N, C\)"),
    ):
        with pytest.raises(ValueError, match=message):
            transition_from_confident_joint(given, probabilities)


@pytest.mark.parametrize("level", [0.025, 0.5, 0.975])
def test_beta_quantiles_of_known_form(level):
    power = np.array([0.01, 0.5, 1.0, 3.0, 400.0])
    one = np.ones(5)
    np.testing.assert_allclose(
        beta_quantile(power, one, level), level ** (1 / power), rtol=1e-6, atol=1e-15
    )
    np.testing.assert_allclose(
        beta_quantile(one, power, level), 1 - (1 - level) ** (1 / power), rtol=1e-6, atol=1e-15
    )
    arcsine = beta_quantile(np.array([0.5]), np.array([0.5]), level)
    np.testing.assert_allclose(arcsine, np.sin(np.pi * level / 2) ** 2, rtol=1e-8)


def test_beta_quantiles_of_large_and_uneven_parameters():
    alpha, beta = np.array([[0.3, 2000.0], [5e5, 0.3]]), np.array([[4000.0, 3000.0], [5e5, 0.3]])
    generator = np.random.default_rng(0)
    drawn = generator.beta(alpha, beta, size=(200_000, 2, 2))
    for level in (0.1, 0.9):
        expected = np.quantile(drawn, level, axis=0)
        np.testing.assert_allclose(
            beta_quantile(alpha, beta, level), expected, rtol=0.05, atol=2e-6
        )
