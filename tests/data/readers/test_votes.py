import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data.readers.votes import VOTE_COLUMNS, judge

tables = st.lists(
    st.lists(st.integers(0, 10), min_size=10, max_size=10), min_size=1, max_size=6
).map(torch.tensor)
numbers = st.sampled_from([7, 8])


def cases(votes, num_classes, rule):
    """Rows of votes without the single ones, with what the rule makes of them."""
    shares, leader = judge(votes, num_classes=num_classes, rule=rule)
    for row, row_shares, row_leader in zip(
        votes.tolist(), shares.tolist(), leader.tolist(), strict=True
    ):
        yield [count if count > 1 else 0 for count in row], row_shares, row_leader


def parts(counts):
    return [count / max(1, sum(counts)) for count in counts]


def test_columns_are_the_classes_first():
    assert VOTE_COLUMNS[:2] == ("surprise", "fear")
    assert VOTE_COLUMNS[7:] == ("contempt", "unknown", "NF")


@settings(deadline=None, max_examples=50)
@given(tables, numbers)
def test_majority_by_counting(votes, num_classes):
    for kept, shares, leader in cases(votes, num_classes, "majority"):
        winners = [place for place, count in enumerate(kept) if count > sum(kept) - count]
        assert winners == ([] if leader < 0 else [leader])
        assert shares == [float(place in winners) for place in range(num_classes)]


def slow_shares(kept, num_classes):
    """The authors' way to a distribution, column by column: leader and the classes' votes."""
    total, rest = sum(kept), list(kept)
    taken = [0] * len(kept)
    count, goes_on = 0, True
    while sum(taken) < 0.75 * total and count < 3 and goes_on:
        most = max(rest)
        for column in range(len(kept)):
            if rest[column] != most:
                continue
            if column >= num_classes:
                goes_on = False
                if sum(taken) == 0:
                    taken[column] = most
                break
            taken[column], rest[column] = most, 0
            count += 1
    if sum(taken) <= 0.5 * total or count > 3:
        return -1, [0] * num_classes
    leader = taken.index(max(taken))
    return leader, taken[:num_classes] if leader < num_classes else [0] * num_classes


@settings(deadline=None, max_examples=200)
@given(tables, numbers, st.sampled_from(["probability", "crossentropy"]))
def test_shares_by_taking_column_after_column(votes, num_classes, rule):
    for kept, shares, leader in cases(votes, num_classes, rule):
        expected, taken = slow_shares(kept, num_classes)
        assert leader == expected
        assert shares == pytest.approx(parts(taken))


@settings(deadline=None, max_examples=100)
@given(tables, numbers)
def test_multi_target_by_counting(votes, num_classes):
    for kept, shares, leader in cases(votes, num_classes, "multi_target"):
        many = [count if count / max(1, sum(kept)) >= 0.3 else 0 for count in kept]
        if sum(many) <= sum(kept) / 2:
            assert leader == -1
        else:
            assert leader == many.index(max(many))
        inside = [float(count > 0) for count in many[:num_classes]]
        led = 0 <= leader < num_classes
        assert shares == pytest.approx(parts(inside) if led else [0.0] * num_classes)


@pytest.mark.parametrize(
    ("votes", "shares"),
    [
        ({0: 8, 1: 2}, [1.0, 0.0, 0.0, 0.0]),  # eight tenths are enough
        ({0: 7, 1: 3}, [0.7, 0.3, 0.0, 0.0]),
        ({0: 7, 4: 3}, [1.0, 0.0, 0.0, 0.0]),  # what is no class ends it, untaken
        ({0: 4, 1: 2, 2: 2, 3: 2}, [0.0, 0.0, 0.0, 0.0]),  # four columns are too many
        ({0: 6, 1: 2, 2: 2}, [0.6, 0.2, 0.2, 0.0]),
        ({0: 5, 4: 5}, [0.0, 0.0, 0.0, 0.0]),  # half is not more than half
    ],
)
def test_cases_that_tell_the_rules_apart(votes, shares):
    row = torch.tensor([[votes.get(column, 0) for column in range(6)]])
    assert judge(row, num_classes=4, rule="crossentropy")[0][0].tolist() == pytest.approx(shares)


@pytest.mark.parametrize("rule", ["majority", "probability", "crossentropy", "multi_target"])
def test_all_single_votes_decide_nothing(rule):
    votes = torch.ones(1, 10, dtype=torch.int64)
    shares, leader = judge(votes, num_classes=7, rule=rule)
    assert leader.tolist() == [-1]
    assert shares.sum() == 0


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"num_classes must lie in \[1, 10\], got 11"):
        judge(torch.ones(1, 10), num_classes=11, rule="majority")
    with pytest.raises(ValueError, match=r"votes must have shape \(N, V\)"):
        judge(torch.ones(10), num_classes=7, rule="majority")
    with pytest.raises(ValueError, match="rule must be 'majority', .* got 'mean'"):
        judge(torch.ones(1, 10), num_classes=7, rule="mean")
