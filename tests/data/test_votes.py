import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data.votes import (
    VOTE_COLUMNS,
    majority_column,
    vote_probabilities,
    without_single_votes,
)

tables = st.lists(
    st.lists(st.integers(0, 10), min_size=10, max_size=10), min_size=1, max_size=6
).map(torch.tensor)


def test_columns_are_the_classes_first() -> None:
    assert VOTE_COLUMNS[:2] == ("surprise", "fear")
    assert VOTE_COLUMNS[7:] == ("contempt", "unknown", "NF")


@settings(deadline=None, max_examples=50)
@given(tables)
def test_majority_by_counting(votes: torch.Tensor) -> None:
    for row, column in zip(votes.tolist(), majority_column(votes).tolist(), strict=True):
        kept = [count if count > 1 else 0 for count in row]
        winners = [place for place, count in enumerate(kept) if count > sum(kept) - count]
        assert winners == ([] if column < 0 else [column])


@settings(deadline=None, max_examples=50)
@given(tables, st.sampled_from([7, 8]))
def test_probabilities_by_counting(votes: torch.Tensor, num_classes: int) -> None:
    probabilities, decided = vote_probabilities(votes, num_classes)
    for row, shares, is_decided in zip(
        votes.tolist(), probabilities.tolist(), decided.tolist(), strict=True
    ):
        kept = [count if count > 1 else 0 for count in row]
        inside, outside = sum(kept[:num_classes]), sum(kept[num_classes:])
        assert is_decided == (inside > outside)
        if is_decided:
            assert shares == pytest.approx([count / inside for count in kept[:num_classes]])
        else:
            assert sum(shares) == 0


def test_all_single_votes_decide_nothing() -> None:
    votes = torch.ones(1, 10, dtype=torch.int64)
    assert without_single_votes(votes).sum() == 0
    assert majority_column(votes).tolist() == [-1]
    assert vote_probabilities(votes, 7)[1].tolist() == [False]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"num_classes must lie in \[1, 10\], got 11"):
        vote_probabilities(torch.ones(1, 10), 11)
    with pytest.raises(ValueError, match=r"votes must have shape \(N, V\)"):
        majority_column(torch.ones(10))
