"""Metrics of votes against plain counting."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer_votes.functional import vote_cross_entropy
from robustfer_votes.metrics import cross_entropy_to_votes, human_ceiling, within_votes

row_of_votes = st.lists(st.integers(0, 6), min_size=4, max_size=4)
crowds = st.lists(row_of_votes, min_size=1, max_size=6).filter(
    lambda rows: any(sum(row) > 1 for row in rows)
)


@settings(deadline=None, max_examples=100)
@given(crowds)
def test_one_person_against_the_others(rows):
    scores = []
    for row in rows:
        crowd, agreed = [k for k, count in enumerate(row) for _ in range(count)], []
        for place, own in enumerate(crowd if len(crowd) > 1 else ()):
            others = crowd[:place] + crowd[place + 1 :]
            most = max(others.count(k) for k in others)
            leaders = [k for k in set(others) if others.count(k) == most]
            agreed.append((own in leaders) / len(leaders))
        if agreed:
            scores.append(sum(agreed) / len(agreed))
    found = human_ceiling(torch.tensor(rows)).accuracy
    assert found == pytest.approx(sum(scores) / len(scores), rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(crowds, st.integers(0, 1000))
def test_no_prediction_has_less_cross_entropy_than_the_ceiling(rows, seed):
    votes = torch.tensor(rows)
    generator = torch.Generator().manual_seed(seed)
    probability = torch.randn(votes.shape, generator=generator).softmax(dim=1)
    least = human_ceiling(votes).cross_entropy
    assert cross_entropy_to_votes(probability, votes) >= least - 1e-6
    counts = votes.sum(dim=1, keepdim=True)
    perfect = torch.where(counts > 0, votes / counts, 1 / votes.shape[1])
    assert cross_entropy_to_votes(perfect, votes) == pytest.approx(least, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(crowds, st.integers(0, 1000))
def test_cross_entropy_is_that_of_the_loss(rows, seed):
    votes = torch.tensor(rows)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(votes.shape, generator=generator, dtype=torch.float64)
    found = cross_entropy_to_votes(logits.softmax(dim=1), votes)
    assert found == pytest.approx(vote_cross_entropy(logits, votes, smoothing=0.0).item(), rel=1e-9)


def test_a_class_ruled_out_that_has_votes_costs_without_end():
    assert math.isinf(cross_entropy_to_votes(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 1]])))
    assert cross_entropy_to_votes(torch.tensor([[1.0, 0.0]]), torch.tensor([[2, 0]])) == 0


@settings(deadline=None, max_examples=50)
@given(crowds, st.integers(0, 3), st.integers(1, 3))
def test_within_votes_counts_predictions_that_somebody_shares(rows, predicted, least):
    voted = [row for row in rows if sum(row)]
    expected = sum(row[predicted] >= least for row in voted) / len(voted)
    found = within_votes(torch.full((len(rows),), predicted), torch.tensor(rows), least=least)
    assert found == pytest.approx(expected)


def test_a_crowd_of_one_mind():
    assert human_ceiling(torch.tensor([[10, 0], [0, 7]])) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: human_ceiling(torch.tensor([[1, 0], [0, 0]])), "a face with two votes"),
        (lambda: human_ceiling(torch.zeros(2, 3).long()), "votes must hold a vote"),
        (lambda: human_ceiling(torch.tensor([[2, -1]])), "counts from 0 on, got -1"),
        (lambda: human_ceiling(torch.ones(2, 3)), "votes must be int64 counts"),
        (
            lambda: within_votes(torch.tensor([3]), torch.tensor([[1, 0, 0]])),
            "predicted must hold class indices from 0 to 2",
        ),
        (
            lambda: within_votes(torch.tensor([0.0]), torch.tensor([[1, 0]])),
            "predicted must be int64",
        ),
        (
            lambda: within_votes(torch.tensor([0]), torch.tensor([[1, 0]]), least=0),
            "least must be a whole number from 1 on",
        ),
        (
            lambda: cross_entropy_to_votes(torch.ones(2, 3) / 3, torch.ones(2, 4).long()),
            "votes has C=4 but probabilities has C=3",
        ),
        (
            lambda: cross_entropy_to_votes(torch.tensor([[2.0, 0.5]]), torch.tensor([[1, 0]])),
            "rows of probabilities must be .*pass logits through a softmax",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
