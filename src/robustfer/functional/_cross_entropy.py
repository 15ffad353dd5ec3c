"""Cross entropy as the methods here take it: in float32 for half inputs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from robustfer.functional._precision import Reduction, full_precision


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross entropy with classes (B) or probabilities (B, C); the caller has checked all three."""
    logits = full_precision(logits)
    if target.ndim == 2:
        target = target.to(logits.dtype)
    return F.cross_entropy(logits, target, reduction=reduction, label_smoothing=label_smoothing)
