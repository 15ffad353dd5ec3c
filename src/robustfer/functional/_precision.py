"""Half inputs: sums, squares, logs and exponentials are computed in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from robustfer._checks import check_choice

Reduction = Literal["mean", "sum", "none"]
"""How a loss reduces its values per sample: to their mean, to their sum, or not at all."""

_NOTHING = nullcontext()


def full_precision(tensor: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32; float32 and float64 unchanged.

    >>> full_precision(torch.ones(2, dtype=torch.float16)).dtype
    torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def autocasts(tensor: Tensor) -> bool:
    """Tell whether autocast is on for the device of ``tensor``.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     autocasts(torch.eye(2)), autocasts(torch.eye(2, device="meta"))
    (True, False)
    """
    # torch raises when asked about these, and older torch cannot compile is_autocast_available.
    device_type = tensor.device.type
    return device_type not in ("meta", "lazy") and torch.is_autocast_enabled(device_type)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off, so it does not round products of ``tensor`` to half precision.

    >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(torch.eye(2)):
    ...     (torch.eye(2) @ torch.eye(2)).dtype
    torch.float32
    """
    if autocasts(tensor):
        return torch.autocast(tensor.device.type, enabled=False)
    # Entering autocast has a cost, so skip it where autocast is off already.
    return _NOTHING


def check_reduction(reduction: Reduction) -> Reduction:
    """Return the reduction, or raise if it is not one of the three.

    >>> check_reduction("average")
    Traceback (most recent call last):
    ...
    ValueError: reduction must be 'mean', 'sum' or 'none', got 'average'
    """
    return check_choice("reduction", reduction, ("mean", "sum", "none"))


def reduce(per_sample: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean or the sum of the values per sample, ``(B)``, or the values.

    >>> reduce(torch.tensor([1.0, 3.0]), "mean")
    tensor(2.)
    """
    check_reduction(reduction)
    if reduction == "none":
        return per_sample
    return per_sample.mean() if reduction == "mean" else per_sample.sum()
