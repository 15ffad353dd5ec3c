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
