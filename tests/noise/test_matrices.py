import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import EXPRESSIONS
from robustfer.data.classes import class_order
from robustfer.noise.matrices import (
    LANET_CONFUSIONS,
    crowd_counts,
    noise_matrix,
    transition_matrix,
    without_diagonal,
)

tables = st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=4, max_size=4).map(
    torch.tensor
)


def test_lanet_confusions_name_every_expression():
    matrix = noise_matrix(LANET_CONFUSIONS, EXPRESSIONS)
    assert matrix.sum(1).tolist() == [1.0] * 7
    assert matrix.diagonal().sum() == 0
    with_contempt = noise_matrix(LANET_CONFUSIONS, class_order("affectnet"))
    assert with_contempt[7].tolist() == [0.0] * 7 + [1.0]


def test_synonyms_and_shares():
    matrix = noise_matrix({"Sad": {"angry": 0.25, "neutral": 0.5}}, ["sadness", "anger", "neutral"])
    assert matrix[0].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("confusions", "message"),
    [
        ({"dog": "fear"}, "classes of surprise, fear, .* got 'dog'"),
        ({"fear": "dog"}, "got 'dog'"),
        ({"sad": "fear", "sadness": "anger"}, "each class once, got 'sadness' twice"),
        ({"fear": {"anger": 0.7, "sad": 0.4}}, "at most 1"),
        ({"fear": {"anger": -0.1}}, "must be 0 or more"),
        ({"fear": {"anger": float("nan")}}, "must be 0 or more"),
        ({"fear": 0.3}, "of 'fear' must be a class, or classes with shares such as .* got 0.3"),
        ({"fear": ["anger", "sad"]}, "must be a class, or classes with shares"),
        ({"fear": None}, "must be a class, or classes with shares"),
        ({"fear": {"anger": "a"}}, "must be a class, or classes with shares"),
        ({1: "fear"}, "must name classes of .* got 1"),
        ({"fear": {1: 0.3}}, "must name classes of .* got 1"),
    ],
)
def test_bad_confusions(confusions, message):
    with pytest.raises(ValueError, match=message):
        noise_matrix(confusions, EXPRESSIONS)


@settings(deadline=None, max_examples=25)
@given(tables)
def test_crowd_by_counting(votes):
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for row in votes:
        if 2 * row.max() > row.sum():
            expected[row.argmax()] += row
    if int(expected.sum()):
        assert torch.equal(crowd_counts(votes), expected)
    else:
        with pytest.raises(ValueError, match="no face of the data set has more than half"):
            crowd_counts(votes)


@settings(deadline=None, max_examples=25)
@given(tables)
def test_matrices_are_probabilities(counts):
    for matrix in (transition_matrix(counts), without_diagonal(transition_matrix(counts))):
        torch.testing.assert_close(matrix.sum(1), torch.ones(4, dtype=torch.float64))
        assert matrix.min() >= 0
    wrong = without_diagonal(transition_matrix(counts))
    for row in range(4):
        others = int(counts[row].sum() - counts[row, row])
        assert wrong[row, row] == (0 if others else 1)
        if others:
            expected = counts[row] / others
            expected[row] = 0
            torch.testing.assert_close(wrong[row].float(), expected)


def test_shares_of_the_samples_have_the_matrix_of_their_counts():
    shares = torch.tensor([[0.375, 0.125], [0.0, 0.5]])
    assert transition_matrix(shares).tolist() == transition_matrix(8 * shares).tolist()
    assert transition_matrix(shares).tolist() == [[0.75, 0.25], [0, 1]]
