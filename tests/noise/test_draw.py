"""Samples to verify: all different, as many of each label, in an order that tells nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given as over
from hypothesis import strategies as st

from robustfer.noise import rows_to_verify

GIVEN = torch.tensor([0] * 40 + [4] * 9 + [2] * 3)


@over(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.booleans(), st.integers(0, 9), st.data(),
)  # fmt: skip
def test_rows_are_different_and_as_many_as_asked(labels, stratified, seed, data):
    count = data.draw(st.integers(0, len(labels)))
    rows = rows_to_verify(labels, count, stratified=stratified, seed=seed)
    assert rows.dtype == torch.int64
    assert len(rows) == len(rows.unique()) == count
    assert all(0 <= row < len(labels) for row in rows.tolist())
    if stratified:
        drawn = np.bincount(np.asarray(labels)[rows.numpy()], minlength=6)
        there = np.bincount(labels, minlength=6)
        # No label has a sample left while another one has two more.
        assert all(drawn[a] >= min(there[a], max(drawn) - 1) for a in range(6))


@pytest.mark.parametrize("stratified", [True, False])
def test_a_draw_follows_from_its_seed(stratified):
    drawn = [rows_to_verify(GIVEN, 12, stratified=stratified, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])


def test_each_sample_of_a_label_is_drawn_alike():
    times = torch.zeros(len(GIVEN))
    for seed in range(2000):
        times[rows_to_verify(GIVEN, 6, seed=seed)] += 1
    for label, share in ((0, 2 / 40), (4, 2 / 9), (2, 2 / 3)):
        found = times[label == GIVEN] / 2000
        assert found.mean() == pytest.approx(share, abs=1e-6)
        assert (found - share).abs().max() < 5 * (share / 2000) ** 0.5


def test_the_order_tells_no_label():
    first = [int(GIVEN[rows_to_verify(GIVEN, 9, seed=seed)[0]]) for seed in range(300)]
    shares = np.bincount(first, minlength=5)[[0, 2, 4]] / 300
    assert np.abs(shares - 1 / 3).max() < 0.1


@pytest.mark.parametrize(
    ("options", "error", "facts"),
    [
        ({"count": 53}, ValueError, ["count", "52", "53"]),
        ({"count": -1}, ValueError, ["count", "-1"]),
        ({"seed": -1}, ValueError, ["seed", "-1"]),
        ({"stratified": 1}, TypeError, ["stratified"]),
        ({"given": GIVEN.float()}, ValueError, ["given", "float32"]),
        ({"given": GIVEN[:, None]}, ValueError, ["given"]),
    ],
)
def test_what_does_not_fit_is_refused(options, error, facts):
    with pytest.raises(error) as raised:
        rows_to_verify(**{"given": GIVEN, "count": 5, **options})
    assert all(fact in str(raised.value) for fact in facts)
