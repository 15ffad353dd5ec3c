"""Generalized cross entropy: a function with the mathematics, and its module form."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer.authoring import (
    Reduction,
    at_label,
    check_range,
    check_reduction,
    check_target,
    full_precision,
    reduce,
)


def generalized_cross_entropy(
    logits: Tensor, target: Tensor, *, q: float = 0.7, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return a loss that grows with the doubt in a label, like cross entropy, but only to 1 / q.

    .. math:: \ell_n = \frac{1 - p_{n,y_n}^q}{q}, \qquad p_n = \mathrm{softmax}(z_n)

    Its gradient is that of cross entropy times :math:`p_{n,y_n}^q`. The less probable the network
    finds a label, the less the sample counts. With q near 0 it is cross entropy. With q = 1 it is
    :math:`1 - p_{n,y_n}`, half the absolute error: symmetric noise does not mislead it, but it
    learns slowly. The paper defines the loss for classes. With probabilities, it is the mean over
    labels drawn from them, as in cross entropy.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, which may be wrong.
        q: from cross entropy (near 0) to absolute error (1), in (0, 1]. 0.7 is the paper's.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for one value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with
        Noisy Labels, NeurIPS 2018.

    >>> logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    >>> generalized_cross_entropy(logits, torch.tensor([1, 1]), q=1.0, reduction="none")
    tensor([0.5000, 0.9999])
    """
    check_range("q", q, 0.0, 1.0, open_low=True)
    check_target(logits, target)
    log_p = F.log_softmax(full_precision(logits), dim=1)
    if target.ndim == 1:  # one class of each sample is enough
        return reduce(_box_cox(at_label(log_p, target), q), reduction)
    return reduce(at_label(_box_cox(log_p, q), target), reduction)


def _box_cox(log_p: Tensor, q: float) -> Tensor:
    # From log p, because p itself rounds to 0, where the slope of p**q is infinite. expm1 keeps
    # the digits of 1 - p**q when q or the doubt is small.
    return -torch.expm1(q * log_p) / q


class GeneralizedCrossEntropyLoss(nn.Module):
    """Module form of :func:`robustfer_gce.losses.generalized_cross_entropy`.

    Args:
        q: from cross entropy (near 0) to absolute error (1), in (0, 1].
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for one value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with
        Noisy Labels, NeurIPS 2018.

    >>> criterion = GeneralizedCrossEntropyLoss(q=0.5)
    >>> criterion(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(1.)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, q: float = 0.7, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.q = check_range("q", q, 0.0, 1.0, open_low=True)
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return generalized_cross_entropy(logits, target, q=self.q, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"q={self.q}, reduction={self.reduction!r}"
