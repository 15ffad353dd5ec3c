"""Rows of all processes, joined with the gradient that one process on all rows would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(rows: Tensor) -> Tensor:
    """Join the rows of every process, process 0's first; gradients flow back to their rows.

    Each process then computes the same from the joined rows, and gets for its own rows the sum of
    the gradients in all processes; ``DistributedDataParallel`` divides by their number, which
    leaves the gradient of one process on the joined batch. Handing each process its own slice of
    its own gradient, without the sum, would leave a share of that.

    Every process must call it at the same point, and may bring its own number of rows. Without
    ``torch.distributed``, or with one process, the rows come back as they are.

    Shape:
        ``(B, ...)`` -> ``(B of all processes, ...)``.

    >>> gather_rows(torch.tensor([0.5, 0.25]))
    tensor([0.5000, 0.2500])
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    joined: Tensor = _JoinedRows.apply(rows)
    return joined


class _JoinedRows(torch.autograd.Function):
    # A sum in which every process fills its own rows: backends that cannot gather rows of uneven
    # number can do this, and the same sum brings the gradients back.

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        lengths = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
        lengths[dist.get_rank()] = len(rows)
        dist.all_reduce(lengths)
        before, after = lengths[: dist.get_rank()].sum(), lengths.sum()
        start, total = torch.stack((before, after)).tolist()
        ctx.own = slice(start, start + len(rows))
        joined = rows.new_zeros(total, *rows.shape[1:])
        joined[ctx.own] = rows
        dist.all_reduce(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.own]
