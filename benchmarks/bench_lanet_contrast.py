"""Time the expression-landmark contrast in both directions: forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from robustfer.functional import expression_landmark_contrast

BATCH, DIM, CLASSES, TEMPERATURE = 128, 64, 7, 0.1
CAPACITY = 8192
LONGER = [16_384, 65_536, 262_144]


def literal(a, keys, label, queue, queue_label):
    """Follow the equation: a row with the positive and all negatives for every pair."""
    batch = len(a)
    positive = (a @ keys.T).reshape(batch * batch, 1)
    negative = a @ queue.T - 1e10 * (label[:, None] == queue_label)
    rows = torch.cat([positive, negative.repeat_interleave(batch, dim=0)], dim=1) / TEMPERATURE
    target = torch.zeros(batch * batch, dtype=torch.int64, device=a.device)
    pairs = F.cross_entropy(rows, target, reduction="none").reshape(batch, batch)
    same = (label[:, None] == label).to(a.dtype)
    return ((pairs * same).sum(1) / same.sum(1)).mean()


def plain(a, keys, label, queue, queue_label):
    """Compute one log-sum-exp per row, shared by its positives."""
    negative = (a @ queue.T / TEMPERATURE).masked_fill(label[:, None] == queue_label, -float("inf"))
    pairs = F.softplus(negative.logsumexp(1, keepdim=True) - a @ keys.T / TEMPERATURE)
    same = (label[:, None] == label).to(a.dtype)
    return ((pairs * same).sum(1) / same.sum(1)).mean()


def both_ways(one_way):
    def loss(expression_query, landmark_query, expression_key, landmark_key, label, *queues):
        expression_queue, landmark_queue, queue_label = queues
        there = one_way(expression_query, landmark_key, label, landmark_queue, queue_label)
        back = one_way(landmark_query, expression_key, label, expression_queue, queue_label)
        return there + back

    return loss


FORMS = {
    "literal": both_ways(literal),
    "plain": both_ways(plain),
    "ours": expression_landmark_contrast,
}


def make_inputs(capacity, device):
    generator = torch.Generator().manual_seed(0)

    def unit(rows):
        return F.normalize(torch.randn(rows, DIM, generator=generator), dim=1).to(device)

    queries, keys = [unit(BATCH).requires_grad_() for _ in "12"], [unit(BATCH) for _ in "12"]
    labels = [torch.randint(CLASSES, (n,), generator=generator) for n in (BATCH, capacity)]
    label, queue_label = (rows.to(device) for rows in labels)
    return queries, (*queries, *keys, label, unit(capacity), unit(capacity), queue_label)


@pytest.mark.parametrize("form", FORMS)
def test_contrast(compare, device, form):
    queries, inputs = make_inputs(CAPACITY, device)

    def gradients(function=FORMS[form]):
        return torch.autograd.grad(function(*inputs), queries)

    for found, expected in zip(gradients(), gradients(FORMS["plain"]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    compare(
        gradients,
        group=f"landmark contrast {BATCH}x{DIM}, queue {CAPACITY}",
        column=form,
        plain=lambda: gradients(FORMS["plain"]),
        min_rounds=5 if form == "literal" else 20,
    )


@pytest.mark.parametrize("capacity", LONGER)
def test_contrast_with_a_longer_queue(compare, device, capacity):
    """Time grows with the queue, but memory does not."""
    queries, inputs = make_inputs(capacity, device)

    def gradients():
        return torch.autograd.grad(expression_landmark_contrast(*inputs), queries)

    compare(gradients, group=f"landmark contrast {BATCH}x{DIM}, queue {capacity}", column="ours")
