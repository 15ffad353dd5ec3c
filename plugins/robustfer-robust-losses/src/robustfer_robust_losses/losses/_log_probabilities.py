"""What the losses share: all are computed from log p, which never rounds to minus infinity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer.authoring import check_target, full_precision


def log_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """Log softmax (B, C) of checked arguments, in float32 for half inputs."""
    check_target(target, logits)
    return F.log_softmax(full_precision(logits), dim=1)


def box_cox(log_p: Tensor, q: float) -> Tensor:
    """Return (1 - p**q) / q, also where p rounds to 0 and where q or 1 - p is small.

    >>> box_cox(torch.tensor([0.0, -1e4]), q=0.5)
    tensor([-0., 2.])
    """
    return -torch.expm1(q * log_p) / q
