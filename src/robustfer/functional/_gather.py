"""Join the rows of all processes, with the gradient of one process on the joined batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def several_processes() -> bool:
    """Return whether ``torch.distributed`` runs more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(*tensors: Tensor) -> tuple[tuple[Tensor, ...], int]:
    """Join the rows of all processes in rank order, differentiably.

    Every process must call it at the same point. Processes may have different numbers of rows. A
    call synchronises with the GPU once, for the lengths, so pass all tensors in one call. With one
    process the rows are returned unchanged.

    Each process computes the same loss from the joined rows. The backward pass sums the gradients
    of all processes, and ``DistributedDataParallel`` divides by their number. The result is the
    gradient of one process on the joined batch.

    Args:
        tensors: tensors of one length on one device. Dtypes and other axes must be the same in
            every process.

    Returns:
        The joined tensors, and the index of this process's first row in them.
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
    # Each process fills its own rows, and a sum joins them. Every backend can sum, but not every
    # one can gather uneven numbers of rows. The backward pass is the same sum.

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
