"""Rows of a batch, keyed by sample: what several kinds of state need."""

from __future__ import annotations

import torch
from torch import Tensor


def last_of_each(index: Tensor) -> Tensor:
    """Return which rows hold the last occurrence of their value, ``(B,)`` bool; no waiting.

    ``buffer[index] = values`` with a repeated row keeps any of them on CUDA: write these only.

    >>> last_of_each(torch.tensor([5, 2, 5, 5, 2]))
    tensor([False, False, False,  True,  True])
    """
    ordered, order = index.sort(stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return torch.empty_like(last).index_copy_(0, order, last)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return ``(B, C)`` rows; zeros for a label outside, where torch's own would stop or wait."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes).to(dtype)
