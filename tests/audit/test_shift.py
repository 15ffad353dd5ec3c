import pytest
import torch

from robustfer.audit.shift import shift_of_shares


def test_labels_that_go_one_way_shift_the_shares():
    counts = torch.tensor([[500, 200, 0], [0, 300, 0], [0, 0, 400]])
    found = shift_of_shares(counts)
    assert found.share > 0.97
    assert found.low <= found.share <= found.high <= 1
    assert found.chance < 0.1


def test_labels_that_go_both_ways_alike_shift_nothing_but_by_chance():
    few = torch.tensor([[40, 4, 4], [4, 20, 4], [4, 4, 16]])
    found, many = shift_of_shares(few), shift_of_shares(50 * few)
    assert many.share < 0.06 < found.share
    assert found.share == pytest.approx(found.chance, abs=0.1)
    assert many.chance < found.chance


def test_the_share_is_that_of_the_equation():
    counts = 1000 * torch.tensor([[30, 6, 1], [2, 20, 5], [0, 1, 35]])
    net = [abs(7 - 2), abs(7 - 7), abs(1 - 6)]
    found = shift_of_shares(counts)
    assert found.share == pytest.approx(sum(net) / 2 / 15, abs=0.01)
    narrow = shift_of_shares(counts, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_without_a_wrong_label_nothing_is_said():
    assert shift_of_shares(torch.diag(torch.tensor([3, 2, 1]))) is None


def test_a_stratified_draw_is_weighted_by_the_labels():
    """As many faces of each label, half of them wrong; label 0 stands for nine times as many."""
    counts = torch.tensor([[500, 500], [500, 500]])
    even = shift_of_shares(counts, given_counts=torch.tensor([500, 500]))
    uneven = shift_of_shares(counts, given_counts=torch.tensor([900, 100]))
    assert even.share < 0.1
    # 450 of 500 wrong labels go from class 1 to label 0, and 50 back.
    assert uneven.share == pytest.approx((450 - 50) / 500, abs=0.05)
    assert uneven.chance < 0.1


def test_wrong_labels_of_rare_classes_are_seen():
    """Their weights are small, but they are there."""
    counts = torch.diag(torch.tensor([14, 14, 14])) + torch.tensor(
        [[0, 0, 3], [0, 0, 2], [0, 0, 0]]
    )
    found = shift_of_shares(counts, given_counts=torch.tensor([9000, 900, 20]))
    assert found is not None
    assert 0 < found.low <= found.share <= found.high <= 1
    assert found.chance <= 1


def test_labels_that_nobody_has_or_verified_add_nothing():
    counts = torch.tensor([[40, 0, 0, 0], [10, 30, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = shift_of_shares(counts, given_counts=torch.tensor([500, 300, 0, 700]))
    others = shift_of_shares(counts[:2, :2], given_counts=torch.tensor([500, 300]))
    assert found.share == pytest.approx(others.share, abs=0.04)
