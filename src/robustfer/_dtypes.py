"""Keep state out of half precision when a parent module is cast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class NeverHalf(nn.Module):
    """Base of modules that remember: a cast to half precision leaves them as they are.

    ``model.bfloat16()`` casts all parts of a model, but a mean of many small updates would stop
    moving in bfloat16. Moves to a device and casts to other dtypes pass.

    >>> part = NeverHalf()
    >>> part.register_buffer("mean", torch.tensor([1 / 3]))
    >>> model = nn.Sequential(part).bfloat16()
    >>> part.mean, model.double()[0].mean.dtype
    (tensor([0.3333]), torch.float64)
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(partial(_not_half, fn), recurse)  # type: ignore[no-untyped-call]


def _not_half(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    result = fn(tensor)
    if result.dtype == tensor.dtype or result.dtype not in (torch.float16, torch.bfloat16):
        return result
    # The same cast may move the tensor to another device or memory format.
    return torch.empty_like(result, dtype=tensor.dtype).copy_(tensor)
