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


def negative_log_likelihood(log_p: Tensor, target: Tensor) -> Tensor:
    """Mean of :func:`cross_entropy`, where the logarithms of the probabilities are there already.

    >>> import torch
    >>> log_p = torch.tensor([[0.25, 0.75]]).log()
    >>> negative_log_likelihood(log_p, torch.tensor([1]))
    tensor(0.2877)
    >>> negative_log_likelihood(log_p, torch.tensor([[0.0, 1.0]]))
    tensor(0.2877)
    """
    if target.ndim == 2:
        return -(target.to(log_p.dtype) * log_p).sum(dim=1).mean()
    return F.nll_loss(log_p, target)
