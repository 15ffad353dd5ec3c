"""Read and write rows of state by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import check_bool, check_finite, check_shapes, values_are_checked
from robustfer.functional._gather import several_processes
from robustfer.state._distributed import gather_in_rank_order
from robustfer.state._label_checks import check_index, check_rows


def read_rows(bank: Tensor, index: Tensor) -> Tensor:
    """Return the rows of a bank for the samples of a batch, as a new tensor.

    On a GPU an index outside the bank is a device-side assertion without details. Under
    :func:`robustfer.losses.check_values` the error names the index, which costs a
    synchronisation.

    Args:
        bank: state with a row per sample.
        index: rows of the samples in their data set.

    Shape:
        bank ``(N, ...)``, index ``(B)`` int64 -> ``(B, ...)``.

    Raises:
        IndexError: an index is outside the bank (on CUDA a device-side assertion).
        TypeError: ``index`` is not a tensor.
        ValueError: the shape, dtype or device of ``index`` does not fit.

    >>> read_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1]))
    tensor([[0., 1.]])
    """
    check_bank_index(bank, index)
    return select_rows(bank, index)


@torch.no_grad()
def write_rows(
    bank: Tensor, index: Tensor, rows: Tensor, *, name: str = "rows", gather: bool = True
) -> None:
    """Write one row per sample into a bank, in place.

    If a sample comes twice, its last row wins, on every device. A row with NaN or infinity is
    skipped. An index outside the bank raises before anything is written.

    With several processes each holds the whole bank. The rows of all are joined in rank order
    first. So each bank equals that of one process on the joined batch.

    Args:
        bank: state with one row per sample.
        index: rows of the samples in their data set.
        rows: the new rows; floating-point rows are converted to the dtype of the bank.
        name: name of the rows in errors.
        gather: join the rows of all processes. Each must then call this at the same point. With
            one process it has no effect.

    Shape:
        bank ``(N, ...)``, index ``(B)`` int64, rows ``(B, ...)``.

    Raises:
        IndexError: an index is outside the bank (on CUDA a device-side assertion).
        TypeError: ``index`` or ``rows`` is not a tensor, or ``gather`` is not a bool.
        ValueError: a shape, dtype or device does not fit, or a row is not finite under
            :func:`robustfer.losses.check_values`.

    >>> bank = torch.zeros(3, 2)
    >>> write_rows(bank, torch.tensor([2, 0, 2]), torch.tensor([[1.0, 1], [2, 2], [3, 3]]))
    >>> write_rows(bank, torch.tensor([2]), torch.tensor([[4.0, torch.nan]]))  # skipped
    >>> bank
    tensor([[2., 2.],
            [0., 0.],
            [3., 3.]])
    """
    check_bool("gather", gather)
    check_bank_index(bank, index)
    axes = " ".join(["B*", *map(str, bank.shape[1:])])
    check_shapes(**{name: (rows, axes), "index": (index, "B*")})
    if rows.dtype != bank.dtype and not (rows.is_floating_point() and bank.is_floating_point()):
        wanted = "a floating-point dtype" if bank.is_floating_point() else f"dtype {bank.dtype}"
        raise ValueError(f"{name} must have {wanted}, got {rows.dtype}")
    rows = rows.to(bank.dtype)
    if gather and several_processes():
        index, rows = gather_in_rank_order(index, rows)
    if values_are_checked():
        check_finite(**{name: rows})
    # This raises for an index outside. index_copy_ would first write the rows before it.
    old = select_rows(bank, index)
    finite = finite_rows(rows)
    rows = torch.where(finite.view(-1, *[1] * (rows.ndim - 1)), rows, old)
    # Every occurrence of a sample writes its last finite row, so the order of writes is irrelevant.
    key = torch.add(finite, index, alpha=2)
    ordered, order = key.sort(stable=True)
    last = order.index_select(0, torch.searchsorted(ordered, key | 1, right=True).sub_(1))
    bank.index_copy_(0, index, rows.index_select(0, last))


def select_rows(bank: Tensor, index: Tensor) -> Tensor:
    """Return the rows of an index. An index outside is named on a CPU or if values are checked."""
    if values_are_checked():
        check_rows(index, len(bank))
    try:
        # Unlike bank[index], this refuses negative rows.
        return bank.index_select(0, index)
    except IndexError:
        check_rows(index, len(bank))
        raise


def finite_rows(rows: Tensor) -> Tensor:
    """Return which rows are finite, ``(B)`` bool, without waiting for the device.

    >>> finite_rows(torch.tensor([[1.0, 2.0], [3.0, torch.inf]]))
    tensor([ True, False])
    """
    if not rows.is_floating_point():
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    # Faster than isfinite: x - x is NaN unless x is finite, and NaN does not equal itself.
    nothing = rows - rows
    if rows.ndim > 1:
        nothing = nothing.flatten(1).sum(dim=1)
    return nothing == nothing


def last_of_each(index: Tensor) -> Tensor:
    """Return which entries are the last of their value, ``(B)`` bool, without waiting.

    With repeated rows, ``buffer[index] = values`` on CUDA keeps any of them. Write only these.

    >>> last_of_each(torch.tensor([5, 2, 5, 5, 2]))
    tensor([False, False, False,  True,  True])
    """
    ordered, order = index.sort(stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return torch.empty_like(last).index_copy_(0, order, last)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return ``(B, C)`` rows. Unlike torch's, it never waits: a label outside gives zeros."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes).to(dtype)


def check_bank_index(bank: Tensor, index: Tensor) -> None:
    """Require an index whose shape, dtype and device fit the bank."""
    check_index(index)
    if index.device != bank.device:
        raise ValueError(
            f"index is on {index.device} but the bank is on {bank.device}; move them to one device"
        )
