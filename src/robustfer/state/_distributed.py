"""Join the rows of all processes, to keep state the same in each of them."""

from __future__ import annotations

from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from robustfer.functional._gather import several_processes


@torch.no_grad()
def gather_in_rank_order(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Join the rows of all processes in rank order, without gradient.

    Every process must call it at the same point. Processes may have different numbers of rows, or
    none. With one process the tensors are returned unchanged.

    Args:
        tensors: tensors of one length on one device. Dtypes and other axes must be the same in
            every process.

    Returns:
        The joined tensors, on the device of ``tensors``.

    Raises:
        ValueError: rows differ in size between processes; every process raises it.

    >>> gather_in_rank_order(torch.tensor([3, 1]), torch.tensor([0.5, 0.25]))
    (tensor([3, 1]), tensor([0.5000, 0.2500]))
    """
    if not several_processes():
        return tensors
    # As bytes, all tensors travel in one call, and backends need not know their dtypes.
    columns = [_as_bytes(tensor) for tensor in tensors]
    home, meeting = tensors[0].device, _meeting_place(tensors[0].device)
    mine = torch.cat(columns, dim=1).to(meeting)
    shapes = [shape.tolist() for shape in _all_gather(torch.tensor(mine.shape, device=meeting))]
    lengths, widths = zip(*shapes, strict=True)
    if len(set(widths)) > 1:
        raise ValueError(
            "rows must have the same shape and dtype in every process, got rows of "
            f"{', '.join(map(str, widths))} bytes from process 0 on"
        )
    padded = mine.new_zeros(max(lengths), widths[0])
    padded[: len(mine)] = mine
    parts = zip(_all_gather(padded), lengths, strict=True)
    joined = torch.cat([part[:length] for part, length in parts]).to(home)
    split = torch.split(joined, [column.shape[1] for column in columns], dim=1)
    return tuple(
        _packed(part).view(tensor.dtype).reshape(len(joined), *tensor.shape[1:])
        for part, tensor in zip(split, tensors, strict=True)
    )


def _as_bytes(tensor: Tensor) -> Tensor:
    rows = tensor.reshape(len(tensor), prod(tensor.shape[1:]))
    return _packed(rows).view(torch.uint8)


def _packed(rows: Tensor) -> Tensor:
    # torch takes a single row of any strides for contiguous, but cannot view it as another dtype.
    return rows.clone(memory_format=torch.contiguous_format)


def _meeting_place(home: torch.device) -> torch.device:
    # A backend sends tensors of one kind of device only.
    backend = dist.get_backend()
    if backend == "gloo":
        return torch.device("cpu")
    if backend == "nccl":
        return home if home.type == "cuda" else torch.device("cuda", torch.cuda.current_device())
    return home


def _all_gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts
