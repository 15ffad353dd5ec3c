"""Reverse cross entropy, with prediction and label exchanged."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustfer.authoring import Reduction, at_label, check_range, check_reduction, reduce
from robustfer_robust_losses.losses._log_probabilities import log_probabilities


def reverse_cross_entropy(
    logits: Tensor, target: Tensor, *, floor: float = 1e-4, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the cross entropy with prediction and label exchanged.

    .. math::
        \ell_n = -\sum_k p_{n,k} \log \max(t_{n,k}, f), \qquad
        \ell_n = -\log f \cdot (1 - p_{n,y_n}) \text{ of a class } y_n

    The floor :math:`f` replaces the zeros of the label :math:`t`, whose logarithm would be
    infinite. The paper writes a constant :math:`A = \log f` for it. For classes it is the mean
    absolute error times :math:`-A`, 9.21 by default, and as robust. For probabilities it is this
    sum, not the mean over labels drawn from them.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        floor: replaces the zeros of a label, in (0, 1).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019.

    >>> logits = torch.tensor([[0.0, 0.0], [99.0, 0.0]])
    >>> reverse_cross_entropy(logits, torch.tensor([1, 1]), reduction="none")
    tensor([4.6052, 9.2103])
    """
    check_range("floor", floor, 0.0, 1.0, open_low=True, open_high=True)
    log_p = log_probabilities(logits, target)
    if target.ndim == 2:
        label = target.to(log_p.dtype)
        # A floor below the least number of the dtype would round to 0.
        small = label <= floor
        log_label = label.masked_fill(small, 1.0).log().masked_fill(small, math.log(floor))
        per_sample = -(log_p.exp() * log_label).sum(dim=1)
    else:
        per_sample = math.log(floor) * at_label(torch.expm1(log_p), target)
    return reduce(per_sample, reduction)


class ReverseCrossEntropyLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.reverse_cross_entropy`.

    Args:
        floor: replaces the zeros of a label, in (0, 1).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019.

    >>> ReverseCrossEntropyLoss()(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(6.9078)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, floor: float = 1e-4, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.floor = check_range("floor", floor, 0.0, 1.0, open_low=True, open_high=True)
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return reverse_cross_entropy(logits, target, floor=self.floor, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"floor={self.floor}, reduction={self.reduction!r}"
