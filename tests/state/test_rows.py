import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.authoring import read_rows, write_rows
from robustfer.losses import check_values
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from robustfer.testing._write_order import writing_backwards

INDEX = torch.tensor([3, 0, 3, 4])


@pytest.mark.parametrize("axes", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_rows_of_any_shape_are_written_and_read(axes, dtype, device):
    bank = torch.zeros(5, *axes, dtype=dtype, device=device)
    rows = torch.randn(4, *axes, generator=torch.Generator().manual_seed(0)).to(dtype).to(device)
    index = INDEX.to(device)
    expected = bank.clone()
    for place, row in zip(INDEX.tolist(), rows, strict=True):
        expected[place] = row
    with refused_host_synchronisation(), writing_backwards():
        write_rows(bank, index, rows)
        assert read_rows(bank, index).shape == rows.shape
    assert torch.equal(bank, expected)
    assert torch.equal(read_rows(bank, index), expected[index])


def test_what_is_read_is_a_copy():
    bank = torch.zeros(5, 2)
    read_rows(bank, INDEX).add_(1.0)
    assert not bank.any()


def test_what_is_read_of_a_parameter_has_a_gradient():
    learned = torch.zeros(5, 2, requires_grad=True)
    read_rows(learned, INDEX).sum().backward()
    assert learned.grad[:, 0].tolist() == [1.0, 0.0, 0.0, 2.0, 1.0]


def test_what_is_written_keeps_no_graph():
    bank = torch.zeros(5, 2)
    write_rows(bank, INDEX, torch.ones(4, 2, requires_grad=True) * 2)
    assert not bank.requires_grad
    assert bank[:, 0].tolist() == [2.0, 0.0, 0.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("bank", "rows", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(3, 2), r"index has B=4 but belief has B=3"),
        (torch.zeros(5, 2), torch.zeros(0, 2), r"index has B=4 but belief has B=0"),
        (torch.zeros(5, 2), torch.zeros(4, 3), r"belief must have shape \(B, 2\), got \(4, 3\)"),
        (torch.zeros(5), torch.zeros(4, 1), r"belief must have shape \(B\), got \(4, 1\)"),
        (torch.zeros(5), INDEX, "belief must have a floating-point dtype, got torch.int64"),
        (torch.zeros(5).long(), INDEX.int(), "belief must have dtype torch.int64, got torch.int32"),
        (torch.zeros(5).long(), torch.zeros(4), "belief must have dtype torch.int64, got torch.fl"),
        (torch.zeros(5, device="meta"), torch.zeros(4), "index is on cpu but the bank is on meta"),
        (torch.zeros(5), torch.zeros(4, device="meta"), "index is on cpu but belief is on meta"),
    ],
)
def test_rows_that_do_not_fit_are_refused(bank, rows, message):
    with pytest.raises(ValueError, match=message):
        write_rows(bank, INDEX, rows, name="belief")


@pytest.mark.parametrize("axes", [(), (2, 3)])
def test_a_batch_of_no_rows_changes_nothing(axes, device):
    bank = torch.randn(5, *axes, device=device)
    before, none = bank.clone(), torch.zeros(0, dtype=torch.int64, device=device)
    write_rows(bank, none, torch.zeros(0, *axes, device=device))
    assert torch.equal(bank, before)
    assert read_rows(bank, none).shape == (0, *axes)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=9),
    bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    axes=st.sampled_from([(), (2,), (2, 3)]),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
def test_a_row_that_is_not_finite_is_as_if_it_had_not_come(rows, bad, axes, dtype):
    bank = torch.randn(5, *axes, generator=torch.Generator().manual_seed(0)).to(dtype)
    index = torch.tensor([place for place, _ in rows], dtype=torch.int64)
    values = torch.randn(len(rows), *axes, generator=torch.Generator().manual_seed(1))
    expected = bank.clone()
    for row, (place, finite) in enumerate(rows):
        if finite:
            expected[place] = values[row].to(dtype)
        else:
            values[row].view(-1)[-1] = bad
    with check_values(False), refused_host_synchronisation(), writing_backwards():
        write_rows(bank, index, values)
    assert torch.equal(bank, expected)


def test_a_row_too_large_for_the_bank_is_skipped():
    bank = torch.ones(2, 1, dtype=torch.float16)
    write_rows(bank, torch.tensor([0]), torch.tensor([[1e6]]))
    assert bank.tolist() == [[1.0], [1.0]]


def test_a_row_that_is_not_finite_is_refused_when_asked_for():
    bank = torch.zeros(5, 2)
    rows = torch.tensor([[1.0, 1.0], [1.0, float("nan")]])
    with check_values(), pytest.raises(ValueError, match="belief must be finite, got 1 NaN"):
        write_rows(bank, INDEX[:2], rows, name="belief")
    assert not bank.any()


def test_gather_is_no_word():
    with pytest.raises(TypeError, match="gather must be True or False, got 'false'"):
        write_rows(torch.zeros(5), INDEX, torch.zeros(4), gather="false")


@pytest.mark.parametrize("index", [[0, 5], [0, -1], [5, 0]])
def test_a_row_outside_is_named_before_any_is_written(index):
    bank = torch.zeros(5, 2)
    outside = next(row for row in index if row)
    with pytest.raises(IndexError, match=f"index must hold rows from 0 to 4, got {outside} at"):
        write_rows(bank, torch.tensor(index), torch.ones(2, 2))
    assert not bank.any()


def read(index):
    read_rows(torch.zeros(5), index)


def write(index):
    write_rows(torch.zeros(5), index, torch.zeros(len(index)))


@pytest.mark.parametrize("call", [read, write])
def test_an_index_that_does_not_fit_is_refused(call):
    for index, message in (
        (INDEX.int(), r"index must be int64 of shape \(B\), got torch.int32 of shape \(4\)"),
        (INDEX[None], r"index must be int64 of shape \(B\), got torch.int64 of shape \(1, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call(index)
    with pytest.raises(TypeError, match=r"index must be a torch.Tensor, got list"):
        call([0])
    for outside in (-1, 5):
        for asked in (False, True):
            message = f"index must hold rows from 0 to 4, got {outside} at position 0"
            with check_values(asked), pytest.raises(IndexError, match=message):
                call(torch.tensor([outside]))
