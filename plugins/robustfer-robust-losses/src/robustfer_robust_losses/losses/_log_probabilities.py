"""Compute with log probabilities, which do not round to minus infinity, for all losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer.authoring import check_target, full_precision


def log_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """Check the arguments, and return log softmax (B, C), in float32 for half inputs."""
    check_target(logits, target)
    return F.log_softmax(full_precision(logits), dim=1)


def box_cox(log_p: Tensor, q: float) -> Tensor:
    """Return (1 - p**q) / q, also if p rounds to 0, or q or 1 - p is small.

    >>> box_cox(torch.tensor([0.0, -1e4]), q=0.5)
    tensor([-0., 2.])
    """
    return -torch.expm1(q * log_p) / q
