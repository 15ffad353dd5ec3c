import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import EXPRESSIONS
from robustfer.noise import (
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
    with_contempt = noise_matrix(LANET_CONFUSIONS, "affectnet")
    assert with_contempt[7].tolist() == [0.0] * 7 + [1.0]


def test_synonyms_and_shares():
    matrix = noise_matrix({"Sad": {"angry": 0.25, "neutral": 0.5}}, ["sadness", "anger", "neutral"])
    assert matrix[0].tolist() == [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("confusions", "message"),
    [
        ({"dog": "fear"}, "'dog' is none of the classes surprise, fear"),
        ({"fear": "dog"}, "'dog' is none of the classes"),
        ({"sad": "fear", "sadness": "anger"}, "each class once, got 'sadness' twice"),
        ({"fear": {"anger": 0.7, "sad": 0.4}}, "no more than 1"),
        ({"fear": {"anger": -0.1}}, "must be positive"),
        ({"fear": {"anger": float("nan")}}, "must be positive"),
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
    assert torch.equal(crowd_counts(votes), expected)


def test_crowd_of_faces_whose_class_is_known():
    votes = torch.tensor([[8, 2], [5, 5]])
    assert crowd_counts(votes, true=torch.tensor([0, 1])).tolist() == [[8, 2], [5, 5]]
    with pytest.raises(ValueError, match="true has N=1 but votes has N=2"):
        crowd_counts(votes, true=torch.tensor([0]))
    with pytest.raises(ValueError, match="true must hold class indices"):
        crowd_counts(votes, true=torch.tensor([0, 2]))


@pytest.mark.parametrize(
    "votes", [torch.tensor([[0.6, 0.4]]), torch.tensor([[True, False]]), torch.tensor([[3, -1]])]
)
def test_votes_are_whole_numbers_from_0_on(votes):
    with pytest.raises(ValueError, match="votes must be whole numbers from 0 on, got torch"):
        crowd_counts(votes)


def test_votes_of_small_integers_do_not_overflow():
    votes = torch.tensor([[200, 30], [100, 110]])
    assert crowd_counts(votes.to(torch.uint8)).tolist() == crowd_counts(votes).tolist()
    with pytest.raises(ValueError, match=r"true must be int64, got torch\.float32"):
        crowd_counts(votes, true=torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("matrix_of", [transition_matrix, without_diagonal])
def test_counts_and_shares_are_finite_and_not_negative(matrix_of):
    with pytest.raises(ValueError, match=r"(counts|matrix) must lie in \[0, inf\), got -1"):
        matrix_of(torch.tensor([[1, -1], [0, 1]]))
    with pytest.raises(ValueError, match="(counts|matrix) must be finite, got 1 NaN"):
        matrix_of(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]))


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
