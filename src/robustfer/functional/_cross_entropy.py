"""Cross entropy as every method here takes it: checked, in float32 for half inputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import check_target
from robustfer.functional._precision import Reduction, check_reduction, full_precision


def cross_entropy(logits: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Cross entropy of ``logits`` (B, C) with classes (B) or probabilities (B, C)."""
    check_target(target, logits)
    check_reduction(reduction)
    logits = full_precision(logits)
    if target.ndim == 2:
        target = target.to(logits.dtype)
    return F.cross_entropy(logits, target, reduction=reduction)
