"""Average tensors over processes, and run a network on a batch in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@torch.no_grad()
def average_(fabric: Fabric, tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their mean over all processes, with one message per dtype."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        joined = fabric.all_reduce(torch.cat([one.reshape(-1) for one in group]), reduce_op="mean")
        for one, mean in zip(group, joined.split([one.numel() for one in group]), strict=True):
            one.copy_(mean.view_as(one))


def run_in_parts(module: nn.Module, parts: int) -> None:
    """Run a network on its batch in parts, each computed again in the backward pass.

    Only one part's activations are in memory at a time. The loss still sees the outputs of the
    whole batch, so losses that compare samples do not change. The module's ``forward`` is replaced.

    Args:
        module: all its inputs and outputs have the batch as their first axis.
        parts: number of parts.
    """
    forward = module.forward

    def in_parts(*inputs: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs)
        chunks = zip(*(value.chunk(parts) for value in inputs), strict=True)
        return _joined([run(*chunk) for chunk in chunks])

    def run(*chunk: Tensor) -> Any:
        return checkpoint(
            forward,
            *chunk,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _unchanged_buffers(module)),
        )

    module.forward = in_parts  # type: ignore[method-assign]


@contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restore buffers: the second run must not update running statistics again."""
    buffers = list(module.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.data.copy_(value)


def _joined(parts: list[Any]) -> Any:
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(parts)
    values = [_joined(list(column)) for column in zip(*parts, strict=True)]
    return type(first)(*values) if hasattr(first, "_fields") else type(first)(values)
