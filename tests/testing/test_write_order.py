import pytest
import torch

from robustfer.testing._write_order import writing_backwards

INDEX = torch.tensor([1, 0, 1])
ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


LAST_OF_SAMPLE_1 = {
    "assign": lambda bank: bank.__setitem__(INDEX, ROWS),
    "index_put": lambda bank: bank.index_put_((INDEX,), ROWS),
    "index_copy": lambda bank: bank.index_copy_(0, INDEX, ROWS),
    "index_copy out of place": lambda bank: bank.copy_(bank.index_copy(0, INDEX, ROWS)),
    "index_copy columns": lambda bank: bank.T.index_copy_(1, INDEX, ROWS.T),
    "scatter": lambda bank: bank.scatter_(0, INDEX[:, None].expand(3, 2), ROWS),
    "scatter a part": lambda bank: bank.scatter_(
        0, INDEX[:, None].expand(3, 2), torch.cat((ROWS, ROWS + 9))
    ),
}

NO_ORDER = {
    "one value": lambda bank: bank.__setitem__(INDEX, 3.0),
    "one row": lambda bank: bank.__setitem__(INDEX, ROWS[0]),
    "mask": lambda bank: bank.__setitem__(torch.tensor([True, False, True]), ROWS[:2]),
    "pairs": lambda bank: bank.__setitem__((INDEX[:2], INDEX[1:]), ROWS[0]),
    "sums": lambda bank: bank.index_put_((INDEX,), ROWS, accumulate=True),
    "index_add": lambda bank: bank.index_add_(0, INDEX, ROWS),
    "fill": lambda bank: bank.index_fill_(0, INDEX, 3.0),
}


def written(write):
    bank = torch.zeros(3, 2)
    write(bank)
    return bank


@pytest.mark.parametrize("name", LAST_OF_SAMPLE_1)
def test_the_first_row_stays_instead_of_the_last(name):
    expected = torch.zeros(3, 2)
    expected[:2] = ROWS[[1, 2]]
    assert torch.equal(written(LAST_OF_SAMPLE_1[name]), expected)
    expected[1] = ROWS[0]
    with writing_backwards():
        assert torch.equal(written(LAST_OF_SAMPLE_1[name]), expected)


@pytest.mark.parametrize("name", NO_ORDER)
def test_what_has_no_order_stays_the_same(name):
    expected = written(NO_ORDER[name])
    with writing_backwards():
        assert torch.equal(written(NO_ORDER[name]), expected)
