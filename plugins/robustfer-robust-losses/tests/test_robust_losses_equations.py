"""Each loss against its equation, written out class by class in Python's own numbers."""

import math

import pytest
import torch
import torch.nn.functional as F

from robustfer_robust_losses import losses

CLASSES, BATCH = 5, 12


def cross_entropy(p, y):
    return -math.log(p[y])


def mean_absolute_error(p, y):
    label = [1.0 if k == y else 0.0 for k in range(len(p))]
    return sum(abs(p[k] - label[k]) for k in range(len(p))) / 2


def generalized(p, q):
    return (1 - p**q) / q


def truncated(p, y, q, threshold):
    return generalized(threshold, q) if p[y] <= threshold else generalized(p[y], q)


def normalized(p, y):
    return math.log(p[y]) / sum(math.log(p_k) for p_k in p)


def normalized_generalized(p, y, q):
    return (1 - p[y] ** q) / (len(p) - sum(p_k**q for p_k in p))


# Sums over a distribution t, as the equations have them.


def reverse(p, t, floor):
    return -sum(p[k] * math.log(max(t[k], floor)) for k in range(len(p)))


def soft_bootstrapping(p, t, weight):
    return -sum((weight * t[k] + (1 - weight) * p[k]) * math.log(p[k]) for k in range(len(p)))


def hard_bootstrapping(p, t, weight):
    likeliest = max(range(len(p)), key=lambda k: p[k])
    z = [1.0 if k == likeliest else 0.0 for k in range(len(p))]
    return -sum((weight * t[k] + (1 - weight) * z[k]) * math.log(p[k]) for k in range(len(p)))


def drawn(loss, *options):
    """The mean over labels drawn from a distribution t."""
    return lambda p, t: sum(t[k] * loss(p, k, *options) for k in range(len(p)))


def symmetric(p, t):
    return 0.3 * drawn(cross_entropy)(p, t) + 0.8 * reverse(p, t, 0.01)


def active_passive(p, t):
    return 3 * drawn(normalized)(p, t) + 0.5 * drawn(mean_absolute_error)(p, t)


def other_active_passive(p, t):
    return drawn(normalized_generalized, 0.4)(p, t) + 2 * reverse(p, t, 0.01)


CASES = {
    "mean absolute error": (
        losses.mean_absolute_error,
        losses.MeanAbsoluteErrorLoss,
        {},
        drawn(mean_absolute_error),
    ),
    "truncated": (
        losses.truncated_generalized_cross_entropy,
        losses.TruncatedGeneralizedCrossEntropyLoss,
        {"q": 0.6, "threshold": 0.15},
        drawn(truncated, 0.6, 0.15),
    ),
    "reverse": (
        losses.reverse_cross_entropy,
        losses.ReverseCrossEntropyLoss,
        {"floor": 0.01},
        lambda p, t: reverse(p, t, 0.01),
    ),
    "symmetric": (
        losses.symmetric_cross_entropy,
        losses.SymmetricCrossEntropyLoss,
        {"cross_entropy_weight": 0.3, "reverse_weight": 0.8, "floor": 0.01},
        symmetric,
    ),
    "normalized": (
        losses.normalized_cross_entropy,
        losses.NormalizedCrossEntropyLoss,
        {},
        drawn(normalized),
    ),
    "normalized generalized": (
        losses.normalized_generalized_cross_entropy,
        losses.NormalizedGeneralizedCrossEntropyLoss,
        {"q": 0.4},
        drawn(normalized_generalized, 0.4),
    ),
    "active passive": (
        None,
        losses.ActivePassiveLoss,
        {"active_weight": 3.0, "passive_weight": 0.5},
        active_passive,
    ),
    "other active passive": (
        None,
        losses.ActivePassiveLoss,
        {
            "active": "normalized_generalized_cross_entropy",
            "passive": "reverse_cross_entropy",
            "passive_weight": 2.0,
            "q": 0.4,
            "floor": 0.01,
        },
        other_active_passive,
    ),
    "soft bootstrapping": (
        losses.soft_bootstrapping,
        losses.SoftBootstrappingLoss,
        {"label_weight": 0.6},
        lambda p, t: soft_bootstrapping(p, t, 0.6),
    ),
    "hard bootstrapping": (
        losses.hard_bootstrapping,
        losses.HardBootstrappingLoss,
        {"label_weight": 0.6},
        lambda p, t: hard_bootstrapping(p, t, 0.6),
    ),
}


def sample():
    generator = torch.Generator().manual_seed(0)
    logits, votes = 2 * torch.randn(2, BATCH, CLASSES, dtype=torch.float64, generator=generator)
    return logits, torch.arange(BATCH) % CLASSES, votes.softmax(dim=1)


def written_out(logits, distributions, loss):
    values = []
    for row, t in zip(logits.tolist(), distributions.tolist(), strict=True):
        total = sum(math.exp(score) for score in row)
        values.append(loss([math.exp(score) / total for score in row], t))
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_its_equation(name, kind):
    function, module, options, loss = CASES[name]
    logits, classes, votes = sample()
    one_hot = F.one_hot(classes, CLASSES).double()
    target, distributions = (classes, one_hot) if kind == "classes" else (votes, votes)
    expected = written_out(logits, distributions, loss)
    for reduction, value in (
        ("none", expected),
        ("mean", expected.mean()),
        ("sum", expected.sum()),
    ):
        made = module(**options, reduction=reduction)
        torch.testing.assert_close(made(logits, target), value, rtol=1e-12, atol=1e-12)
        if function is not None:
            result = function(logits, target, **options, reduction=reduction)
            torch.testing.assert_close(result, value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_class_is_the_distribution_that_is_sure_of_it(name):
    _, module, options, _ = CASES[name]
    logits, classes, _ = sample()
    criterion = module(**options, reduction="none")
    one_hot = F.one_hot(classes, CLASSES)
    for target in (one_hot.double(), one_hot.half()):
        torch.testing.assert_close(criterion(logits, target), criterion(logits, classes))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0]])
def test_a_module_without_options_is_the_function_without(name):
    function, module, _, _ = CASES[name]
    logits, classes, _ = sample()
    torch.testing.assert_close(module()(logits, classes), function(logits, classes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_a_gap_of_ten_thousand_gives_finite_gradients(name, dtype):
    _, module, options, _ = CASES[name]
    criterion = module(**options, reduction="none")
    gap = torch.tensor([1e4, 0.0, -1e4, 3.0, 0.0], dtype=dtype).expand(CLASSES, -1)
    every_label = torch.arange(CLASSES)
    for target in (every_label, F.one_hot(every_label, CLASSES).float()):
        logits = gap.clone().requires_grad_()
        loss = criterion(logits, target)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert logits.grad.isfinite().all()
