import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional import importance_health, rank_regularization
from robustfer.functional.ranking import (
    importance_weighted_cross_entropy,
    low_importance,
    weighted_logits,
)
from robustfer.losses import check_values
from tests.reference import attention as entropy_reference
from tests.reference import importance as reference


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def importances(seed, batch, dtype=torch.float64):
    """Near each other, so that the ranking is not content."""
    return torch.sigmoid(0.2 * draw(seed, batch, dtype=dtype))


# Weighting


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (5, 7), (3, 200)])
def test_weighted_cross_entropy_is_the_equation(batch, classes, biased, soft):
    logits, importance = 3 * draw(0, batch, classes), importances(1, batch)
    bias = draw(2, classes) if biased else None
    target = torch.arange(batch) % classes
    if soft:
        target = draw(3, batch, classes).softmax(1)
    weighted = reference.weighted_logits(logits, importance, bias)
    torch.testing.assert_close(weighted_logits(logits, importance, bias=bias), weighted)
    rows = torch.stack([
        entropy_reference.cross_entropy(weighted[n : n + 1], target[n : n + 1])
        for n in range(batch)
    ])  # fmt: skip
    for reduction, expected in (("none", rows), ("mean", rows.mean()), ("sum", rows.sum())):
        value = importance_weighted_cross_entropy(
            logits, target, importance, bias=bias, reduction=reduction
        )
        torch.testing.assert_close(value, expected)


def test_importance_one_changes_nothing_and_zero_leaves_the_bias():
    logits, bias = draw(0, 4, 7), draw(1, 7)
    ones, zeros = torch.ones(4).double(), torch.zeros(4).double()
    torch.testing.assert_close(weighted_logits(logits, ones, bias=bias), logits)
    expected = bias.expand(4, 7)
    torch.testing.assert_close(weighted_logits(logits, zeros, bias=bias), expected)


def test_the_bias_as_part_of_a_classifier_gets_its_whole_gradient():
    """Weighting all but the bias of a linear layer is that layer on weighted inputs."""
    classifier, inputs = torch.nn.Linear(5, 7).double(), draw(0, 4, 5)
    importance, target = importances(1, 4), torch.tensor([0, 6, 3, 3])
    loss = importance_weighted_cross_entropy(
        classifier(inputs), target, importance, bias=classifier.bias
    )
    other = torch.nn.functional.cross_entropy(classifier(importance[:, None] * inputs), target)
    torch.testing.assert_close(loss, other)
    for one, expected in zip(
        torch.autograd.grad(loss, classifier.parameters()),
        torch.autograd.grad(other, classifier.parameters()),
        strict=True,
    ):
        torch.testing.assert_close(one, expected)


# Ranking


@pytest.mark.parametrize("high_ratio", [0.1, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("batch", [1, 2, 3, 10, 32, 90])
def test_ranking_is_the_loop(batch, high_ratio):
    for margin in (0.0, 0.07, 0.3):
        importance = importances(batch, batch).requires_grad_()
        expected = reference.rank_regularization(importance, margin, high_ratio)
        loss = rank_regularization(importance, margin=margin, high_ratio=high_ratio)
        torch.testing.assert_close(loss, expected)
        (found,) = torch.autograd.grad(loss, importance)
        wanted = torch.zeros_like(importance)
        if expected.requires_grad:
            (wanted,) = torch.autograd.grad(expected, importance)
        torch.testing.assert_close(found, wanted)


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=12),
    st.sampled_from([0.3, 0.5, 0.7]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_ties_fall_into_complementary_groups(values, high_ratio, margin):
    importance = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    loss = rank_regularization(importance, margin=margin, high_ratio=high_ratio)
    expected = reference.rank_regularization(importance, margin, high_ratio)
    torch.testing.assert_close(loss, expected)
    low = low_importance(importance.detach(), high_ratio=high_ratio)
    size = reference.group_size(len(values), high_ratio)
    assert low.nonzero()[:, 0].tolist() == sorted(reference.groups(importance, size)[1])


@given(st.integers(1, 12), st.integers(0, 99), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=25)
def test_invariances_of_the_ranking(batch, seed, margin):
    importance = importances(seed, batch)
    loss = rank_regularization(importance, margin=margin)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(rank_regularization(importance[order], margin=margin), loss)
    # It is blind to what all have in common, bounded by margin, and steady.
    torch.testing.assert_close(rank_regularization(importance - 0.05, margin=margin), loss)
    assert 0 <= loss <= margin + 1e-12
    assert rank_regularization(importance, margin=1.0) >= loss


@pytest.mark.parametrize("high_ratio", [0.5, 0.6, 0.7, 0.8])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_group_sizes(high_ratio, variant):
    """The public program rounds the float product down, so some of its groups are one short."""
    sizes = range(2, 2049)
    found = [
        batch
        - int(low_importance(torch.zeros(batch), high_ratio=high_ratio, variant=variant).sum())
        for batch in sizes
    ]
    if variant == "official":
        assert found == [math.floor(batch * high_ratio) for batch in sizes]
    else:
        assert found == [reference.group_size(batch, high_ratio) for batch in sizes]


def test_the_official_group_of_ninety_is_one_short():
    importance = importances(0, 90)
    official = rank_regularization(importance, margin=0.3, variant="official")
    expected = reference.rank_regularization(importance, 0.3, 0.7, high=62)
    torch.testing.assert_close(official, expected)
    ours = rank_regularization(importance, margin=0.3)
    torch.testing.assert_close(ours, reference.rank_regularization(importance, 0.3, 0.7, high=63))
    assert (ours - official).abs() > 1e-4


@pytest.mark.parametrize(("variant", "expected"), [("paper", 0.0), ("official", 0.15)])
def test_a_batch_of_one_is_attached_and_moves_nothing(variant, expected):
    importance = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    margin = torch.tensor(0.15, dtype=torch.float64, requires_grad=True)
    loss = rank_regularization(importance, margin=margin, variant=variant)
    assert loss == expected
    loss.backward()
    assert importance.grad == 0
    assert margin.grad == float(variant == "official")


def test_a_group_that_stays_empty_costs_nothing():
    importance = torch.tensor([0.9, 0.2], requires_grad=True)
    for variant in ("paper", "official"):
        loss = rank_regularization(importance, margin=1.0, high_ratio=0.4, variant=variant)
        assert loss == 0
        assert loss.requires_grad


@pytest.mark.parametrize("batch", [1, 2, 10])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_a_nan_stays_a_nan(batch, variant):
    """The public program's comparison makes a zero of it."""
    importance = importances(0, batch)
    importance[0] = float("nan")
    assert rank_regularization(importance, variant=variant).isnan()


def test_saturated_importances_still_give_a_ranking_and_its_gradient():
    """Exactly 1 in half precision, every one: the loss asks for the margin and says of whom."""
    importance = torch.sigmoid(torch.full((10,), 12.0, dtype=torch.float16)).requires_grad_()
    assert (importance == 1).all()
    loss = rank_regularization(importance, margin=0.15)
    torch.testing.assert_close(loss, torch.tensor(0.15))
    loss.backward()
    expected = torch.tensor([-1 / 7] * 7 + [1 / 3] * 3, dtype=torch.float16)
    torch.testing.assert_close(importance.grad, expected)


# Health


def test_health_tells_the_groups_and_their_spread():
    importance = importances(0, 40)
    high, low = reference.groups(importance, 28)
    health = importance_health(importance.requires_grad_())
    torch.testing.assert_close(health.mean_high, importance[high].mean().detach())
    torch.testing.assert_close(health.mean_low, importance[low].mean().detach())
    mean = importance.mean()
    spread = sum((value - mean) ** 2 for value in importance) / 40
    torch.testing.assert_close(health.spread, spread.sqrt().detach())
    assert health.saturated == 0
    assert not any(value.requires_grad for value in health)


def test_health_counts_what_a_sigmoid_cannot_move():
    importance = torch.tensor([1.0, 0.9995, 0.0, 0.0004, 0.5], dtype=torch.float16)
    health = importance_health(importance)
    torch.testing.assert_close(health.saturated, torch.tensor(0.8))
    assert {value.dtype for value in health} == {torch.float32}
    exactly = importance_health(importance, tolerance=0.0).saturated
    torch.testing.assert_close(exactly, torch.tensor(0.4))


def test_health_of_one_sample_has_no_high_group():
    health = importance_health(torch.tensor([0.5]))
    assert health.mean_high.isnan()
    assert (health.mean_low, health.spread) == (0.5, 0.0)


# Refusals


def bad_importances():
    good = torch.full((4,), 0.5)
    yield good[:, None], {}, r"importance must have shape \(B\), got \(4, 1\)"
    yield good[:0], {}, "importance is empty along B"
    yield good.long(), {}, "importance must have a floating-point dtype, got torch.int64"
    yield good, {"margin": -0.1}, r"margin must lie in \[0, 1\], got -0.1"
    yield good, {"margin": 1.5}, r"margin must lie in \[0, 1\], got 1.5"
    yield good, {"margin": torch.zeros(2)}, r"margin must have shape \(\), got \(2\)"
    yield good, {"margin": torch.tensor(1)}, "margin must have a floating-point dtype"
    yield good, {"high_ratio": 0.0}, r"high_ratio must lie in \(0, 1\), got 0.0"
    yield good, {"high_ratio": 1.0}, r"high_ratio must lie in \(0, 1\), got 1.0"
    yield good, {"variant": "public"}, "variant must be 'paper' or 'official', got 'public'"


@pytest.mark.parametrize(("importance", "options", "message"), list(bad_importances()))
def test_ranking_refuses(importance, options, message):
    with pytest.raises(ValueError, match=message):
        rank_regularization(importance, **options)


def bad_weightings():
    good = {
        "logits": torch.zeros(4, 7),
        "target": torch.zeros(4, dtype=torch.int64),
        "importance": torch.full((4,), 0.5),
    }
    yield {**good, "importance": torch.zeros(3)}, "importance has B=3 but logits has B=4"
    yield {**good, "importance": torch.zeros(4, 1)}, r"importance must have shape \(B\)"
    yield {**good, "logits": torch.zeros(4, 7, 1)}, r"logits must have shape \(B, C\)"
    yield {**good, "logits": good["logits"].long()}, "logits must have a floating-point dtype"
    yield {**good, "target": good["target"][:2]}, "target has B=2 but logits has B=4"
    yield {**good, "bias": torch.zeros(6)}, "bias has C=6 but logits has C=7"
    yield {**good, "bias": torch.zeros(7, device="meta")}, "bias is on meta but logits is on cpu"
    yield {**good, "reduction": "avg"}, "reduction must be 'mean', 'sum' or 'none', got 'avg'"


@pytest.mark.parametrize(("arguments", "message"), list(bad_weightings()))
def test_weighting_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        importance_weighted_cross_entropy(**arguments)


@pytest.mark.parametrize("tolerance", [-0.1, 0.5])
def test_health_refuses(tolerance):
    with pytest.raises(ValueError, match=r"tolerance must lie in \[0, 0.5\)"):
        importance_health(torch.full((4,), 0.5), tolerance=tolerance)


def test_values_are_looked_at_where_asked_for():
    logits = torch.tensor([0.5, 3.0])  # a head without its sigmoid
    assert rank_regularization(logits) == 0
    with (
        check_values(),
        pytest.raises(ValueError, match=r"sigmoid.* \[0, 1\], got 3 at position 1"),
    ):
        rank_regularization(logits)
    with check_values(), pytest.raises(ValueError, match="importance must be finite"):
        importance_health(torch.tensor([0.5, float("nan")]))
