"""Noise-aware weighting against the equations, in plain Python, and robustfer's checks."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from robustfer.losses import CompositeLoss, Term, check_values
from robustfer.testing import LossConformance
from robustfer_nla.functional import (
    geometric_jensen_shannon,
    jensen_shannon,
    noise_aware_weights,
)
from robustfer_nla.losses import NoiseAwareWeightingLoss


class TestNoiseAwareWeighting(LossConformance):
    # The weights are constants: no slope of the result runs through them.
    test_gradient_is_right = None

    def make_loss(self):
        return NoiseAwareWeightingLoss(label_weight=0.6, agreed_weight=1.5)

    def make_inputs(self, *, batch, classes, dtype, generator):
        one, other = torch.randn(2, batch, classes, dtype=dtype, generator=generator)
        return {
            "logits": one,
            "logits_flipped": other,
            "target": torch.randint(classes, (batch,), generator=generator),
            "progress": torch.tensor(0.1, dtype=dtype),
        }


class TestWithProbabilities(TestNoiseAwareWeighting):
    def make_inputs(self, *, batch, classes, dtype, generator):
        given = super().make_inputs(batch=batch, classes=classes, dtype=dtype, generator=generator)
        votes = torch.randn(batch, classes, dtype=dtype, generator=generator)
        return {**given, "target": votes.softmax(dim=1)}


class TestOfficial(TestNoiseAwareWeighting):
    test_gradient_is_right = LossConformance.test_gradient_is_right

    def make_loss(self):
        return NoiseAwareWeightingLoss(variant="official")


def softmax(row):
    e = [math.exp(score - max(row)) for score in row]
    return [value / sum(e) for value in e]


def weight(row, label, done, agreed_weight):
    """The density, by torch's own normal distribution with the covariance as a matrix."""
    p = softmax(row)
    x = [p[label], max(value for k, value in enumerate(p) if k != label)]
    eps = 1 - math.exp(-15 * done)
    if p[label] > x[1]:
        own, shared = 0.8**2 + (0.8 / 2) ** 2, eps * (-(0.8**2) + (0.8 / 2) ** 2)
        mean, factor = [0.5, 0.5], agreed_weight
    else:
        own, shared = 0.91**2 + (0.91 / 6) ** 2, 0.91**2 - (0.91 / 6) ** 2
        mean, factor = [0.30, 0.15], 1.0
    mean, matrix, x = (
        torch.tensor(values, dtype=torch.float64)
        for values in (mean, [[own, shared], [shared, own]], x)
    )
    return factor * MultivariateNormal(mean, matrix).log_prob(x).exp().item()


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def written_out(given, *, label_weight, agreed_weight, variant):
    """Both terms of the loss, sample by sample."""
    rows = given["logits"].tolist(), given["logits_flipped"].tolist(), given["target"].tolist()
    of_labels, consistency = 0.0, 0.0
    for row, mirrored, label in zip(*rows, strict=True):
        p, q = softmax(row), softmax(mirrored)
        w = weight(row, label, float(given["progress"]), agreed_weight)
        of_labels += (1 + w) * -math.log(p[label])
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        if variant == "official":
            middle = softmax([(a + b) / 2 for a, b in zip(row, mirrored, strict=True)])
        consistency += divergence(p, middle) / 2 + divergence(q, middle) / 2
    size = len(rows[0])
    if variant == "paper":
        consistency /= size
    return label_weight * of_labels / size, (1 - label_weight) * consistency


def sample(batch=9, classes=7, *, scale=2.0, done=0.1, seed=0):
    maker, generator = TestNoiseAwareWeighting(), torch.Generator().manual_seed(seed)
    given = maker.make_inputs(
        batch=batch, classes=classes, dtype=torch.float64, generator=generator
    )
    given["logits"] *= scale
    given["logits"][0, given["target"][0]] += 5 * scale  # one sample is surely predicted right
    return {**given, "progress": torch.tensor(done, dtype=torch.float64)}


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("done", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (9, 7), (9, 200)])
def test_it_is_the_equations(batch, classes, done, variant):
    given = sample(batch, classes, done=done)
    options = {"label_weight": 0.7, "agreed_weight": 1.5, "variant": variant}
    terms = NoiseAwareWeightingLoss(**options).terms(**given)
    expected = written_out(given, **options)
    assert [term.item() for term in terms.values()] == pytest.approx(expected, rel=1e-10)


def test_labels_may_be_probabilities():
    given = sample()
    given["target"] = given["logits_flipped"].softmax(dim=1)
    weights = noise_aware_weights(given["logits"], given["target"], given["progress"])
    losses = -(given["target"] * given["logits"].log_softmax(dim=1)).sum(dim=1)
    terms = NoiseAwareWeightingLoss(label_weight=1.0).terms(**given)
    torch.testing.assert_close(terms["cross_entropy"], ((1 + weights) * losses).mean())


def test_the_progress_is_a_constant():
    given = sample()
    progress = given["progress"].requires_grad_()
    assert not noise_aware_weights(given["logits"], given["target"], progress).requires_grad


@pytest.mark.parametrize("function", [jensen_shannon, geometric_jensen_shannon])
def test_divergences_reduce_as_they_are_told(function):
    given = sample()
    pair = given["logits"], given["logits_flipped"]
    each, total, mean = (function(*pair, reduction=how) for how in ("none", "sum", "mean"))
    assert each.shape == (9,)
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.mean())


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_gradient_is_right_where_the_weights_are_constants(variant):
    given = sample(3, 5)
    criterion = NoiseAwareWeightingLoss(variant=variant)
    fixed = noise_aware_weights(given["logits"], given["target"], given["progress"])

    def expected(logits, logits_flipped):
        losses = -logits.log_softmax(1).gather(1, given["target"][:, None])[:, 0]
        p, q = logits.softmax(1), logits_flipped.softmax(1)
        w = noise_aware_weights(logits, given["target"], given["progress"])
        m, scale = (p + q) / 2, 1 / 3
        if variant == "official":
            m, scale = ((logits + logits_flipped) / 2).softmax(1), 1.0
        apart = (p * (p / m).log() + q * (q / m).log()).sum() / 2
        w = fixed if variant == "paper" else w
        return 0.5 * ((1 + w) * losses).mean() + 0.5 * scale * apart

    inputs = [given[name].requires_grad_() for name in ("logits", "logits_flipped")]
    assert torch.autograd.gradcheck(expected, inputs)
    found = torch.autograd.grad(criterion(**given), inputs)
    for one, other in zip(found, torch.autograd.grad(expected(*inputs), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_ambiguous_samples_weigh_more_than_noise_and_than_sure_ones():
    """At the end: of two equal classes, surely the label, and surely another class."""
    logits = torch.tensor([[4.0, 4.0, -4.0], [20.0, 0.0, 0.0], [-20.0, 20.0, 0.0]]).double()
    ambiguous, sure, wrong = noise_aware_weights(
        logits, torch.tensor([0, 0, 0]), torch.tensor(1.0)
    ).tolist()
    assert ambiguous > sure > 10 * wrong


def test_the_training_moves_only_the_weights_of_samples_predicted_as_labelled():
    given = sample(64, 3)
    agreed = given["logits"].argmax(1) == given["target"]
    assert agreed.any()
    assert not agreed.all()
    first, last = (
        noise_aware_weights(given["logits"], given["target"], torch.tensor(done))
        for done in (0.0, 1.0)
    )
    assert (first[agreed] != last[agreed]).all()
    assert torch.equal(first[~agreed], last[~agreed])


def test_the_consistency_is_per_sample_in_the_paper_and_grows_with_the_batch_in_public():
    given = sample(4, 5)
    twice = {
        name: tensor.repeat(2, 1) if tensor.ndim == 2 else tensor.repeat(2)
        for name, tensor in given.items()
        if name != "progress"
    }
    for variant, factor in (("paper", 1.0), ("official", 2.0)):
        criterion = NoiseAwareWeightingLoss(variant=variant)
        one = criterion.terms(**given)
        other = criterion.terms(**twice, progress=given["progress"])
        torch.testing.assert_close(other["cross_entropy"], one["cross_entropy"])
        torch.testing.assert_close(other["consistency"], factor * one["consistency"])


@pytest.mark.parametrize("classes", [2, 7, 200])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_divergence_is_bounded_and_finite_for_any_logits(dtype, classes):
    certain = (3e4 * torch.eye(classes)[:2]).to(dtype)
    one, other = certain.requires_grad_(), certain.detach().flip(0).requires_grad_()
    apart = jensen_shannon(one, other, reduction="none")
    apart.sum().backward()
    torch.testing.assert_close(apart, torch.full((2,), math.log(2)))
    assert one.grad.isfinite().all()
    assert other.grad.isfinite().all()
    assert jensen_shannon(one, one) == 0
    public = geometric_jensen_shannon(one, 3e-4 * other)
    assert public.isfinite()


def test_of_probabilities_the_most_probable_class_is_the_label():
    given = sample(6, 5)
    votes = 0.3 / 5 + 0.7 * torch.eye(5, dtype=torch.float64)[given["target"]]
    hard, soft = (
        noise_aware_weights(given["logits"], target, given["progress"])
        for target in (given["target"], votes)
    )
    assert torch.equal(hard, soft)


def test_in_a_composition_the_loop_brings_the_progress():
    given = sample(4, 5)
    composed = CompositeLoss(Term("nla", NoiseAwareWeightingLoss()))
    assert composed.accepts == {"logits", "logits_flipped", "target", "progress"}
    torch.testing.assert_close(composed(**given), NoiseAwareWeightingLoss()(**given))
    del given["progress"]
    with pytest.raises(TypeError, match="'nla' needs the tensor 'progress'"):
        composed(**given)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"label_weight": 1.5}, r"label_weight must lie in \[0, 1\], got 1.5"),
        ({"agreed_weight": -1.0}, r"agreed_weight must lie in \[0, inf\), got -1"),
        ({"variant": "public"}, "variant must be 'paper' or 'official', got 'public'"),
    ],
)
def test_options_that_do_not_fit(options, fact):
    with pytest.raises(ValueError, match=fact):
        NoiseAwareWeightingLoss(**options)


def test_arguments_that_do_not_fit():
    given, criterion = sample(4, 5), NoiseAwareWeightingLoss()
    for change, fact in (
        ({"logits_flipped": given["logits"][:2]}, "logits_flipped has B=2 but logits has B=4"),
        ({"progress": torch.zeros(1)}, r"progress must have shape \(\), got \(1\)"),
        ({"progress": torch.tensor(1)}, "progress must have a floating-point dtype"),
        ({"target": given["target"].int()}, "target must be int64 class indices"),
    ):
        with pytest.raises(ValueError, match=fact):
            criterion(**{**given, **change})
    with pytest.raises(IndexError, match="0 to 4, got 5 at position 0. If your labels count"):
        criterion(**{**given, "target": given["target"].clone().fill_(5)})
    for done in (-0.1, 1.1, math.nan):
        with check_values(), pytest.raises(ValueError, match="progress must"):
            criterion(**{**given, "progress": torch.tensor(done)})


def test_the_module_says_how_it_was_made():
    assert repr(NoiseAwareWeightingLoss(variant="official")) == (
        "NoiseAwareWeightingLoss(label_weight=0.5, agreed_weight=1.0, variant='official')"
    )
