"""Time label distributions from neighbours in two spaces, and their divergence."""

import pytest
import torch
import torch.nn.functional as F

from robustfer.models.label_distribution import LabelDistributionEstimator

BATCH, WIDTHS, CLASSES, NEIGHBORS = 128, (512, 64), 7, 8


def halves(scorer, features):
    return scorer.project(features).chunk(2, dim=1)


def score(scorer, pairs):
    hidden = F.relu(scorer.hidden(F.relu(scorer.pair(pairs))))
    return scorer.score(hidden).softmax(dim=-1)[..., 0]


def nearest(features):
    with torch.no_grad():
        unit = F.normalize(features, dim=1)
        return (unit @ unit.T).fill_diagonal_(-1.0).topk(NEIGHBORS, dim=1).indices


def literal(scorer, features, probabilities):
    """Follow the equation: score every ordered pair, and keep neighbours with a mask."""
    batch = len(features)
    first, second = halves(scorer, features)
    left = first[:, None].expand(-1, batch, -1)
    scores = score(scorer, torch.cat([left, second.expand(batch, -1, -1)], dim=2))
    mask = torch.zeros_like(scores).scatter(1, nearest(features), 1.0)
    weights = (scores * mask + 1e-8 / batch) / ((scores * mask).sum(1, keepdim=True) + 1e-8)
    return weights @ probabilities


def plain(scorer, features, probabilities):
    """Score only the pairs of neighbours."""
    neighbors = nearest(features)
    first, second = halves(scorer, features)
    left = first[:, None].expand(-1, NEIGHBORS, -1)
    scores = score(scorer, torch.cat([left, second[neighbors]], dim=2))
    weights = scores / (scores.sum(1, keepdim=True) + 1e-8)
    return (weights[..., None] * probabilities[neighbors]).sum(1)


def in_both_spaces(one_space):
    def estimate(estimator, expression, landmark, logits, index):
        probabilities = logits.softmax(1)
        there = one_space(estimator.expression_scorer, expression, probabilities)
        return (there + one_space(estimator.landmark_scorer, landmark, probabilities)) / 2

    return estimate


def ours(estimator, *inputs):
    return estimator(*inputs)


FORMS = {"literal": in_both_spaces(literal), "plain": in_both_spaces(plain), "ours": ours}


@pytest.mark.parametrize("form", FORMS)
def test_estimate_with_divergence(compare, device, form):
    torch.manual_seed(0)
    estimator = LabelDistributionEstimator(*WIDTHS, num_neighbors=NEIGHBORS).to(device)
    rows = [torch.randn(BATCH, size).to(device).requires_grad_() for size in (*WIDTHS, CLASSES)]
    index = torch.arange(BATCH, device=device)
    believed = torch.eye(CLASSES, device=device)[index % CLASSES]
    leaves = [*rows, *estimator.parameters()]

    def gradients(function=FORMS[form]):
        target = 0.9 * believed + 0.1 * function(estimator, *rows, index)
        divergence = F.kl_div(rows[2].log_softmax(1), target, reduction="batchmean")
        return torch.autograd.grad(divergence, leaves)

    for found, expected in zip(gradients(), gradients(FORMS["plain"]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-7)
    group = f"label distribution and divergence {BATCH}x{'/'.join(map(str, WIDTHS))}"
    compare(gradients, group=group, column=form, plain=lambda: gradients(FORMS["plain"]))
