"""Rows of all processes, joined with the gradient that one process on all rows would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def several_processes() -> bool:
    """Whether there are other processes to join rows with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(*tensors: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Join the rows of every process, process 0's first; gradients flow back to their rows.

    Each process then computes the same from the joined rows, and gets for its own rows the sum of
    the gradients in all processes; ``DistributedDataParallel`` divides by their number, which
    leaves the gradient of one process on the joined batch. Handing each process its own slice of
    its own gradient, without the sum, would leave a share of that.

    Every process must call it at the same point, and may bring its own number of rows. Without
    ``torch.distributed``, or with one process, the rows come back as they are. The host waits once,
    for the lengths: give what is joined at one point in one call.

    Args:
        tensors: of the same length, on one device; dtypes and other axes as in every process.

    Returns:
        The joined tensors, and which of their rows is this process's first.
    """
    if not several_processes():
        return tensors, 0
    rank, own = dist.get_rank(), len(tensors[0])
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=tensors[0].device)
    counts[rank] = own
    dist.all_reduce(counts)
    lengths: list[int] = counts.tolist()
    start, total = sum(lengths[:rank]), sum(lengths)
    return tuple(_JoinedRows.apply(rows, start, total) for rows in tensors), start


class _JoinedRows(torch.autograd.Function):
    # A sum in which every process fills its own rows: backends that cannot gather rows of uneven
    # number can do this, and the same sum brings the gradients back.

    @staticmethod
    def forward(ctx: Any, rows: Tensor, start: int, total: int) -> Tensor:
        ctx.own = slice(start, start + len(rows))
        joined = rows.new_zeros(total, *rows.shape[1:])
        joined[ctx.own] = rows
        dist.all_reduce(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.own], None, None
