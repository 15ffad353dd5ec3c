"""Rows of all processes, joined: how state stays the same on each of them."""

from __future__ import annotations

from math import prod

import torch
import torch.distributed as dist
from torch import Tensor

from robustfer.functional._gather import several_processes


@torch.no_grad()
def gather_in_rank_order(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Join the rows of every process's tensors, process 0's first; no gradient flows through.

    Every process must call it at the same point, and may bring its own number of rows, none too.
    Without ``torch.distributed``, or with one process, the tensors come back as they are.

    Args:
        tensors: of the same length, on one device; dtypes and other axes as in every process.

    Returns:
        The joined tensors, on the device of those given.

    Raises:
        ValueError: in every process, when rows differ in size between processes: a hang or
            garbled numbers otherwise.

    >>> gather_in_rank_order(torch.tensor([3, 1]), torch.tensor([0.5, 0.25]))
    (tensor([3, 1]), tensor([0.5000, 0.2500]))
    """
    if not several_processes():
        return tensors
    # As bytes, all tensors travel at once and in backends that do not know their dtypes.
    columns = [_as_bytes(tensor) for tensor in tensors]
    home, meeting = tensors[0].device, _meeting_place(tensors[0].device)
    mine = torch.cat(columns, dim=1).to(meeting)
    shapes = [shape.tolist() for shape in _all_gather(torch.tensor(mine.shape, device=meeting))]
    lengths, widths = zip(*shapes, strict=True)
    if len(set(widths)) > 1:
        raise ValueError(
            "every process must bring rows of the same shape and dtype, got rows of "
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
    # A single row passes for contiguous whatever its strides, and then refuses another dtype.
    return rows.clone(memory_format=torch.contiguous_format)


def _meeting_place(home: torch.device) -> torch.device:
    # Each backend carries tensors of one kind of device only.
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
